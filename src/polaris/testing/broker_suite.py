"""The contract of `MessageBroker` as tests: every broker passes all of them.

Derive a class named `Test...` from `BrokerSuite` and give it a fixture `make_broker`: an async function without
arguments that returns a new, connected broker, each time another client of one and the same server. The fixture
disconnects them all afterwards. Every test uses names of its own, so the server may be shared. Streams stay
behind, each reserves at most 16 MiB, and all together less than 1 GiB.

    class TestMyBroker(BrokerSuite):
        @pytest.fixture
        async def make_broker(self):
            ...
            yield make
"""

from __future__ import annotations

from polaris.testing._broker_ack_promises import AckPromises
from polaris.testing._broker_consumer_promises import ConsumerPromises
from polaris.testing._broker_core_promises import ConnectionPromises, CorePromises, RequestPromises
from polaris.testing._broker_scratch import MakeBroker
from polaris.testing._broker_stream_promises import StreamPromises

__all__ = ["BrokerSuite", "MakeBroker"]


class BrokerSuite(ConnectionPromises, CorePromises, RequestPromises, StreamPromises, ConsumerPromises, AckPromises):
    """All promises of a broker."""
