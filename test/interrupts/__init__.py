"""Interrupts at any instruction: nothing is left behind."""
