"""The brokers: each moves bytes behind the port `polaris.messaging.MessageBroker`."""
