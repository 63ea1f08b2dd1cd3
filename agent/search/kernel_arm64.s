#include "textflag.h"

// Go's assembler has no names for these: Vd = Vn * Vm on the low or high eight bytes,
// widened to 16 bits; the same, added to Vd; and pairs of 16 bits added to Vd's 32.
#define SMULL_8H(m, n, d) WORD $(0x0E20C000 | (m)<<16 | (n)<<5 | (d))
#define SMLAL2_8H(m, n, d) WORD $(0x4E208000 | (m)<<16 | (n)<<5 | (d))
#define SADALP_4S(n, d) WORD $(0x4E606800 | (n)<<5 | (d))

// func dotsNEON(dst *int32, rows, query *int8, groups, stride int)
//
// Two products of at most 127*127 fit 16 bits, so the low and the high half of sixteen
// bytes are multiplied into one register before they are widened to 32 bits.
TEXT ·dotsNEON(SB), NOSPLIT, $0-40
	MOVD dst+0(FP), R0
	MOVD rows+8(FP), R1
	MOVD query+16(FP), R2
	MOVD groups+24(FP), R3
	MOVD stride+32(FP), R4
	CBZ  R3, done

rows4:
	MOVD R1, R5
	ADD  R4, R5, R6
	ADD  R4, R6, R7
	ADD  R4, R7, R8
	MOVD R2, R9
	MOVD R4, R10
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16
	VEOR V3.B16, V3.B16, V3.B16

step:
	VLD1.P 16(R9), [V4.B16]
	VLD1.P 16(R5), [V5.B16]
	VLD1.P 16(R6), [V6.B16]
	VLD1.P 16(R7), [V7.B16]
	VLD1.P 16(R8), [V16.B16]
	SMULL_8H(4, 5, 17)
	SMULL_8H(4, 6, 18)
	SMULL_8H(4, 7, 19)
	SMULL_8H(4, 16, 20)
	SMLAL2_8H(4, 5, 17)
	SMLAL2_8H(4, 6, 18)
	SMLAL2_8H(4, 7, 19)
	SMLAL2_8H(4, 16, 20)
	SADALP_4S(17, 0)
	SADALP_4S(18, 1)
	SADALP_4S(19, 2)
	SADALP_4S(20, 3)
	SUBS   $16, R10, R10
	BNE    step

	VADDV V0.S4, V0
	VADDV V1.S4, V1
	VADDV V2.S4, V2
	VADDV V3.S4, V3
	FMOVS F0, (R0)
	FMOVS F1, 4(R0)
	FMOVS F2, 8(R0)
	FMOVS F3, 12(R0)
	ADD   $16, R0, R0
	ADD   R4<<2, R1, R1
	SUBS  $1, R3, R3
	BNE   rows4

done:
	RET
