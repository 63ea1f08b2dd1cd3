#include "textflag.h"

// func dotsAVX2(dst *int32, rows, query *int8, groups, stride int)
//
// Sixteen bytes of the query and of four rows are widened to 16 bits; VPMADDWD adds
// the products in pairs to 32 bits. Four sums a group, written together. Each step asks
// for one cache line some groups ahead: four rows at once hide from the CPU that the
// memory is read from front to back, and without the hint it waits for three quarters
// of the time. The hint may point behind the end; it never faults.
TEXT ·dotsAVX2(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ rows+8(FP), SI
	MOVQ query+16(FP), DX
	MOVQ groups+24(FP), CX
	MOVQ stride+32(FP), R8
	TESTQ CX, CX
	JZ   done

rows4:
	LEAQ  (SI)(R8*1), R9
	LEAQ  (R9)(R8*1), R10
	LEAQ  (R10)(R8*1), R11
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	XORQ  AX, AX

step:
	PREFETCHT0 4096(SI)(AX*4)
	VPMOVSXBW (DX)(AX*1), Y4
	VPMOVSXBW (SI)(AX*1), Y5
	VPMOVSXBW (R9)(AX*1), Y6
	VPMOVSXBW (R10)(AX*1), Y7
	VPMOVSXBW (R11)(AX*1), Y8
	VPMADDWD  Y4, Y5, Y5
	VPMADDWD  Y4, Y6, Y6
	VPMADDWD  Y4, Y7, Y7
	VPMADDWD  Y4, Y8, Y8
	VPADDD    Y5, Y0, Y0
	VPADDD    Y6, Y1, Y1
	VPADDD    Y7, Y2, Y2
	VPADDD    Y8, Y3, Y3
	ADDQ      $16, AX
	CMPQ      AX, R8
	JLT       step

	VPHADDD      Y1, Y0, Y0
	VPHADDD      Y3, Y2, Y2
	VPHADDD      Y2, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDD       X1, X0, X0
	VMOVDQU      X0, (DI)
	ADDQ         $16, DI
	LEAQ         (SI)(R8*4), SI
	DECQ         CX
	JNZ          rows4
	VZEROUPPER

done:
	RET
