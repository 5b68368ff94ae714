"""The page of the multi-task transceiver: a medium is sent, and what each receiver makes of it is shown."""
