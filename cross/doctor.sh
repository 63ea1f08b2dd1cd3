#!/bin/bash
# Lists what building and running postern needs, what of it this machine has, and
# what to install for the rest. Needs no toolchain and changes nothing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=cross/lib.sh
. "$root/cross/lib.sh"
log=/dev/null

# family names the package manager's world this system belongs to.
family() {
	case " $os_id $os_like " in
	*' debian '* | *' ubuntu '*) echo debian ;;
	*' fedora '* | *' rhel '*) echo fedora ;;
	*' arch '*) echo arch ;;
	*suse*) echo suse ;;
	*) echo other ;;
	esac
}

installer() {
	case $(family) in
	debian) echo 'apt-get install --no-install-recommends' ;;
	fedora) echo 'dnf install' ;;
	arch) echo 'pacman -S --needed' ;;
	suse) echo 'zypper install' ;;
	*) echo 'with your package manager:' ;;
	esac
}

# names CHECK gives the packages that bring it.
names() {
	case $(family)-$1 in
	debian-compiler) echo gcc g++ libc6-dev ;;
	debian-pkgconfig) echo pkg-config ;;
	debian-opencv) echo libopencv-dev ;;
	fedora-compiler | suse-compiler) echo gcc gcc-c++ glibc-devel ;;
	fedora-pkgconfig) echo pkgconf-pkg-config ;;
	suse-pkgconfig) echo pkg-config ;;
	fedora-opencv | suse-opencv) echo opencv-devel ;;
	arch-compiler) echo gcc ;;
	arch-pkgconfig) echo pkgconf ;;
	arch-opencv) echo opencv vtk hdf5 ;;
	arch-python) echo python python-pip ;;
	suse-certificates) echo ca-certificates-mozilla ;;
	other-compiler) echo gcc g++ ;;
	other-pkgconfig) echo pkg-config ;;
	other-opencv) echo "opencv-$opencv_version" ;;
	*-python) echo python3 python3-pip ;;
	*-certificates) echo ca-certificates ;;
	*-git) echo git ;;
	esac
}

row() { printf '  %-8s %-14s %s\n' "$1" "$2" "$3"; }

install=()

# system CHECK TITLE: a thing that the system's packages bring.
system() {
	local wanted
	if "check_$1"; then
		row ok "$2" "$found"
		return
	fi
	wanted=$(names "$1")
	row missing "$2" "$problem; package: $wanted"
	# shellcheck disable=SC2206 # a list of names
	install+=($wanted)
}

# own CHECK TITLE: a thing that make setup gets by itself.
own() {
	if "check_$1"; then row ok "$2" "$found"; else
		row missing "$2" "$problem; make setup gets it"
		incomplete=yes
	fi
}

incomplete=
read_os
echo "postern needs, on $os_name:"
if check_machine; then row ok machine "$found"; else
	row missing machine "$problem"
	incomplete=yes
fi
system compiler 'C++ compiler'
system pkgconfig pkg-config
system opencv "OpenCV $opencv_version"
system python 'Python 3, pip'
system certificates certificates
system git git
own go "Go $(wanted_go)"
own litert "LiteRT $litert_version"
own faces 'test faces'

[ -z "${install[*]}" ] || {
	echo
	echo "Install: $(installer) ${install[*]}"
	incomplete=yes
}
if ! is_supported_os && ! check_opencv; then
	echo
	echo "postern is tried on Debian $debian_version. gocv v0.31.0 compiles against OpenCV $opencv_version; where"
	echo "your system's OpenCV is another, build $opencv_version from source or use a Debian $debian_version container."
fi
[ -z "$incomplete" ] || exit 1
echo "Nothing is missing."
