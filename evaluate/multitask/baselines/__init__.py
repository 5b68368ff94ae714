"""Systems that are measured beside the multi-task transceiver and are not trained for it."""
