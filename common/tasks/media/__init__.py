"""What the tasks of the multi-task transceiver share: samples of a corpus, data of a task, and what arrives."""
