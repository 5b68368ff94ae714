"""The multi-task transceiver around a large encoder-decoder model (MTSC): texts and pictures over one channel."""
