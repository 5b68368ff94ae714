"""Model definitions; ``train`` fits them, ``generate`` and ``evaluate`` run them."""
