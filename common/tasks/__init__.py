"""What the receiver does with what arrives: inputs, targets, losses and metrics of each task."""
