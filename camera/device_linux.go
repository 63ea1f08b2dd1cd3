package camera

import (
	"encoding/binary"
	"os"
	"syscall"
	"unsafe"
)

// From linux/videodev2.h.
const (
	vidiocQuerycap    = 0x80685600 // _IOR('V', 0, struct v4l2_capability)
	capCapture        = 0x00000001
	capCaptureMPlane  = 0x00001000
	capDeviceCaps     = 0x80000000 // device_caps is filled in
	offCapabilities   = 84
	offDeviceCaps     = 88
	sizeofCapability  = 104
	captureAnyOfThese = capCapture | capCaptureMPlane
)

// captures asks the driver whether the device at path delivers pictures.
func captures(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var c [sizeofCapability]byte
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), vidiocQuerycap, uintptr(unsafe.Pointer(&c))); errno != 0 {
		return false, errno
	}
	caps := binary.NativeEndian.Uint32(c[offCapabilities:])
	if caps&capDeviceCaps != 0 { // of this node, not of the whole device
		caps = binary.NativeEndian.Uint32(c[offDeviceCaps:])
	}
	return caps&captureAnyOfThese != 0, nil
}
