"""Measuring the multi-task transceiver: every sample of every task over SNR, and what its inputs are worth."""
