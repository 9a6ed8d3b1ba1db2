"""The message bus: typed events over brokers that move bytes."""
