/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stands in for OVMF's code in nodes that are emulated: QEMU's emulation of AMD's virtualisation ends with
 * an assertion when a guest of KVM writes CR8, as OVMF does at each interrupt. As long as that, in the same
 * place. It begins its TPM, counts in the variables' flash how often it has begun, writes down behind that how
 * often its TPM was, and rests.
 */
	.set FLASH, 0xffc00000 + 0x83000	/* of the variables, which begin 4 MiB below 4 GiB */
	.set TPM, 0xfed40000

	.code32
	.globl start
start:
	movw $16, %ax
	movw %ax, %ds
	movw %ax, %es
	movl $1, TPM + 0x08			/* this locality is ours */
	movl $startup, %esi
	movl $12, %ecx
	call ask
	movl $clock, %esi
	movl $10, %ecx
	call ask
	movb TPM + 0x80 + 29, %dl		/* the resets, the last of four bytes */
	movl $FLASH, %edi
	movb $0xff, (%edi)			/* read the flash */
	movb (%edi), %al
	cmpb $0xff, %al
	jne 1f
	xorb %al, %al
1:	incb %al
	call put
	incl %edi
	movb %dl, %al
	call put
2:	hlt
	jmp 2b

put:	movb $0x40, (%edi)			/* write a byte */
	movb %al, (%edi)
	movb $0xff, (%edi)
	ret

ask:	movl $TPM + 0x80, %edi
	cld
	rep movsb
	movl $1, TPM + 0x4c
3:	testl $1, TPM + 0x4c
	jnz 3b
	ret

startup: .byte 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0
clock:	.byte 0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x81

	.balign 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:	.word . - gdt - 1
	.long gdt

	.code16
real:	cli
	movw $(gdtr - start + 0xf000), %bx	/* it lies in the last 4 KiB */
	lgdtl %cs:(%bx)
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $8, $start

	/* Where a processor begins. */
	.org 0xff0
	jmp real
	.org 0x1000
