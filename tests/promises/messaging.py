"""The promises of `polaris.messaging`, each with the edit that breaks it and the tests that notice."""

from __future__ import annotations

from tests.promises._break import Break

UNIT = "tests/unit/messaging"
CLOUDEVENTS = f"{UNIT}/test_cloudevents.py"
COALESCING = f"{UNIT}/test_coalescing.py"
COMPRESSION = f"{UNIT}/test_compression.py"
CONFIG = f"{UNIT}/test_nats_config.py"
DEAD_LETTERS = f"{UNIT}/test_dead_letters.py"
DEAD_LETTER_SEARCH = f"{UNIT}/test_dead_letter_search.py"
KEPT = f"{UNIT}/test_deduplication_kept.py"
KEY_ORDER = f"{UNIT}/test_key_order.py"
MIDDLEWARE_ORDER = f"{UNIT}/test_middleware_order.py"
GUARD = f"{UNIT}/test_guard.py"
MIDDLEWARES = f"{UNIT}/test_middlewares.py"
PAUSE_START_REPLAY = f"{UNIT}/test_pause_start_replay.py"
POLICIES = f"{UNIT}/test_policy_middlewares.py"
PUBLISHING = f"{UNIT}/test_publishing.py"
REDELIVERY = f"{UNIT}/test_redelivery.py"
REQUESTS = f"{UNIT}/test_requests.py"
SEQUENCES = f"{UNIT}/test_sequences.py"
SHEDDING = f"{UNIT}/test_shedding.py"
STOPPING = f"{UNIT}/test_stopping.py"
STRAY = f"{UNIT}/test_stray_cancellations.py"
SUBJECTS = f"{UNIT}/test_subjects.py"
SUBSCRIBING = f"{UNIT}/test_subscribing.py"
UPCASTING = f"{UNIT}/test_upcasting.py"
WIRE = f"{UNIT}/test_nats_wire.py"
SOCKET = f"{UNIT}/test_nats_socket.py"
LANES = f"{UNIT}/test_lanes.py"
AT_ONCE = f"{UNIT}/test_publishing_at_once.py"
TAKING = f"{UNIT}/test_taking_at_once.py"
OUTGOING = f"{UNIT}/test_outgoing_messages.py"
DOMAIN_EVENTS = "tests/unit/domain/test_events.py"
DOMAIN_VERSIONS = "tests/unit/domain/test_event_versions.py"
BROKER = "tests/conformance/test_broker_memory.py::test_the_memory_broker_keeps_its_promise"

PUBLISHED: tuple[Break, ...] = (
    Break(
        promise="a repeated attempt carries the id of the first",
        file="messaging/_publisher.py",
        old="publish(message, delivery=delivery, timeout_s=timeout_s)",
        new="publish(OutgoingMessage(message.subject, message.payload), delivery=delivery, timeout_s=timeout_s)",
        caught_by=(f"{PUBLISHING}::test_an_unconfirmed_event_is_sent_again_with_its_id_and_stored_once",),
    ),
    Break(
        promise="an attempt that may have been stored makes the outcome unknown",
        file="messaging/_publisher.py",
        old="self._doubt = error",
        new="self._last = error",
        caught_by=(f"{PUBLISHING}::test_an_attempt_that_may_be_stored_makes_the_outcome_unknown",),
    ),
    Break(
        promise="an event over the broker's limit is never sent",
        file="messaging/_publisher.py",
        old="if len(message.payload) > limit:",
        new="if len(message.payload) > 10 * limit:",
        caught_by=(f"{OUTGOING}::test_an_oversized_event_does_not_reach_the_broker",),
    ),
    Break(
        promise="an event that a middleware stops is no silent loss",
        file="messaging/_single_events.py",
        old="if not isinstance(context.result, Receipt):",
        new="if context.result is not None and not isinstance(context.result, Receipt):",
        caught_by=(f"{PUBLISHING}::test_a_middleware_that_stops_an_event_is_no_silent_loss",),
    ),
    Break(
        promise="what must be stored is not sent at once",
        file="messaging/_single_events.py",
        old="if self._prompt and delivery is _AT_MOST_ONCE:",
        new="if self._prompt:",
        caught_by=(f"{AT_ONCE}::test_what_must_be_stored_what_is_too_large_and_what_has_no_time_is_not_offered",),
    ),
    Break(
        promise="a broker with a publish of its own is asked by that",
        file="messaging/_line.py",
        old='return offer if "offer" in defined else None',
        new="return offer",
        caught_by=(f"{AT_ONCE}::test_a_broker_whose_publish_was_replaced_is_asked_by_that",),
    ),
    Break(
        promise="a broker whose publish was replaced is asked by that",
        file="messaging/_publisher.py",
        old=' or "publish" in line.replaced',
        new="",
        caught_by=(f"{AT_ONCE}::test_a_broker_whose_publish_was_replaced_is_asked_by_that",),
    ),
    Break(
        promise="a middleware with a part of its own is asked by that, also where nothing waits",
        file="messaging/_chain.py",
        old='return middleware.outward(send) if "outward" in defined and "around" not in vars(middleware) else None',
        new="return middleware.outward(send)",
        caught_by=(f"{AT_ONCE}::test_a_part_that_was_replaced_is_asked_by_its_own",),
    ),
    Break(
        promise="an event keeps its number over epochs",
        file="messaging/_sequences.py",
        old="{self._epoch(known >> _NUMBER_BITS)}",
        new="{self.epoch}",
        caught_by=(f"{SEQUENCES}::test_an_event_of_an_older_epoch_keeps_its_number_whether_it_was_confirmed_or_not",),
    ),
    Break(
        promise="the id of a batch follows from all of its events",
        file="messaging/_batches.py",
        old="for event in self.events]).encode())",
        new="for event in self.events[:1]]).encode())",
        caught_by=(f"{OUTGOING}::test_the_id_of_a_batch_follows_from_all_of_its_events_and_nothing_else",),
    ),
    Break(
        promise="a batch stays under the limit of the broker",
        file="messaging/_batches.py",
        old="size + more > bytes_max - 2 or",
        new="size + more > 2 * bytes_max or",
        caught_by=(f"{PUBLISHING}::test_messages_of_many_events_stay_under_the_limit",),
    ),
    Break(
        promise="what fits into one message at once does not exceed the limit",
        file="messaging/_batches.py",
        old="len(encoded) <= bytes_max - 2:",
        new="len(encoded) <= 2 * bytes_max:",
        caught_by=(f"{OUTGOING}::test_events_that_just_fit_travel_in_one_message_and_a_byte_more_makes_it_two",),
    ),
    Break(
        promise="a batch holds a bounded number of events",
        file="messaging/_batches.py",
        old="index - start >= BATCH_EVENTS)",
        new="index - start >= 10 * BATCH_EVENTS)",
        caught_by=(f"{OUTGOING}::test_a_batch_holds_512_events_however_small_they_are",),
    ),
    Break(
        promise="an event on an idle topic does not linger",
        file="messaging/_coalescing.py",
        old="return await self._send(topic, Batch(",
        new="return await asyncio.sleep(0.05) or await self._send(topic, Batch(",
        caught_by=(f"{COALESCING}::test_an_event_on_an_idle_topic_leaves_at_once_and_alone",),
    ),
)

TOPICS: tuple[Break, ...] = (
    Break(
        promise="* stands for one token",
        file="messaging/_patterns.py",
        old="""part != found[index]):
            return False
    return len(wanted) == len(found)
""",
        new="""part != found[index]):
            return False
    return len(wanted) == len(found) or part == "*"
""",
        caught_by=(
            f"{SUBJECTS}::test_patterns_match_as_nats_defines_them",
            f"{BROKER}[test_wildcards_match_as_nats_defines_them]",
        ),
    ),
    Break(
        promise="> stands for one token or more",
        file="messaging/_patterns.py",
        old="""            return len(found) > index
        if index >= len(found) or (part""",
        new="""            return len(found) >= index
        if index >= len(found) or (part""",
        caught_by=(f"{SUBJECTS}::test_patterns_match_as_nats_defines_them",),
    ),
    Break(
        promise="an id with a dot is one token",
        file="messaging/_subjects.py",
        old='.replace(".", "%2E")',
        new="",
        caught_by=(
            f"{SUBJECTS}::test_an_id_is_one_token_and_comes_back",
            f"{SUBJECTS}::test_events_that_name_their_system_have_a_topic_of_their_own",
        ),
    ),
    Break(
        promise="an id can never widen a subscription",
        file="messaging/_subjects.py",
        old='_SAFE = "~:@=+,"',
        new='_SAFE = "~:@=+,*>"',
        caught_by=(f"{SUBJECTS}::test_the_topic_of_any_id_is_legal_and_matches_itself_alone",),
    ),
)

IN_THE_CHAIN: tuple[Break, ...] = (
    Break(
        promise="the first middleware is outermost",
        file="messaging/_chain.py",
        old="zip(reversed(self.middlewares), reversed(self._steps), strict=True)",
        new="zip(self.middlewares, self._steps, strict=True)",
        caught_by=(f"{MIDDLEWARES}::test_the_first_middleware_is_outermost_and_results_come_back",),
    ),
    Break(
        promise="a middleware whose process was replaced is asked by that",
        file="messaging/_chain.py",
        old='getattr(middleware.process, "__func__", None) is BoundMiddleware.process',
        new="middleware.process is not None",
        caught_by=(f"{MIDDLEWARES}::test_a_middleware_whose_process_was_replaced_is_asked_by_that",),
    ),
    Break(
        promise="middlewares that stand the wrong way round are refused",
        file="messaging/_chain.py",
        old="one.order > middleware.order)",
        new="one.order > 1_000)",
        caught_by=(
            f"{MIDDLEWARE_ORDER}::test_two_that_stand_the_wrong_way_round_are_refused_by_name_and_with_the_reason",
        ),
    ),
    Break(
        promise="an incoming correlation id is kept by the logging middleware",
        file="messaging/middleware/_logging.py",
        old="with correlation_scope(context.correlation_id) as",
        new="with correlation_scope(None) as",
        caught_by=(f"{MIDDLEWARES}::test_an_incoming_correlation_id_is_kept_and_a_missing_one_made",),
    ),
    Break(
        promise="the correlation id of an event is current in its handler",
        file="messaging/middleware/_correlation.py",
        old="chosen = context.correlation_id\n",
        new="chosen = None\n",
        caught_by=(
            f"{SUBSCRIBING}::test_the_correlation_id_of_an_event_is_current_in_its_handler_and_goes_on",
            f"{REQUESTS}::test_the_event_that_a_handler_returns_is_the_reply",
        ),
    ),
    Break(
        promise="the trace of an event goes on in its handler",
        file="messaging/middleware/_correlation.py",
        old="with trace_scope(trace.child()):",
        new="with trace_scope(None):",
        caught_by=(f"{SUBSCRIBING}::test_the_trace_of_an_event_goes_on_in_its_handler",),
    ),
    Break(
        promise="a message is compressed only if that makes it smaller",
        file="messaging/middleware/_compression.py",
        old="return frame if len(frame) < len(payload) else None",
        new="return frame",
        caught_by=(f"{COMPRESSION}::test_what_would_not_become_smaller_is_left_alone",),
    ),
    Break(
        promise="a message is compressed from 1 KiB on",
        file="messaging/middleware/_compression.py",
        old="THRESHOLD_BYTES = 1_024",
        new="THRESHOLD_BYTES = 2_048",
        caught_by=(f"{OUTGOING}::test_a_message_is_compressed_from_1_kib_on",),
    ),
    Break(
        promise="a frame that says how large it is stays under the bound",
        file="messaging/_content_encoding.py",
        old="if declared > bytes_max:",
        new="if declared > 1 << 40:",
        caught_by=(f"{COMPRESSION}::test_the_bound_is_exact_for_both_kinds_of_frame",),
    ),
    Break(
        promise="a frame that does not say how large it is stays under the bound",
        file="messaging/_content_encoding.py",
        old="decompress(payload, max_output_size=bytes_max)",
        new="decompress(payload, max_output_size=16 * bytes_max)",
        caught_by=(f"{COMPRESSION}::test_the_bound_is_exact_for_both_kinds_of_frame",),
    ),
    Break(
        promise="an event is handled once, however often it is delivered",
        file="messaging/middleware/_deduplication.py",
        old="if context.direction is MessageDirection.PUBLISH:",
        new="if context.direction:",
        caught_by=(
            f"{MIDDLEWARES}::test_an_event_is_handled_once_per_subscription",
            f"{MIDDLEWARES}::test_duplicates_within_and_between_batches_are_taken_out",
        ),
    ),
    Break(
        promise="what one subscription has handled is no duplicate for another",
        file="messaging/middleware/_deduplication.py",
        old='receiver = context.receiver or context.subscription or ""',
        new='receiver = ""',
        caught_by=(f"{MIDDLEWARES}::test_an_event_is_handled_once_per_subscription",),
    ),
    Break(
        promise="an id counts once its handler has returned",
        file="messaging/middleware/_deduplication.py",
        old="""                result = await next_handler(context)
                self._note(new, saved=seen is None)
""",
        new="""                self._note(new, saved=seen is None)
                result = await next_handler(context)
""",
        caught_by=(f"{MIDDLEWARES}::test_an_event_whose_handler_failed_is_no_duplicate",),
    ),
    Break(
        promise="a second delivery waits for the outcome of the first",
        file="messaging/middleware/_deduplication.py",
        old="while busy := [self._running[key] for key in keys if key in self._running]:",
        new="while busy := []:",
        caught_by=(f"{MIDDLEWARES}::test_a_second_delivery_waits_for_the_outcome_of_the_first",),
    ),
    Break(
        promise="an event is remembered for good before it is acknowledged",
        file="messaging/middleware/_deduplication.py",
        old="unsaved = [key for key in taken if key in self._handled]",
        new="unsaved: list[Key] = []",
        caught_by=(
            f"{KEPT}::test_what_could_not_be_remembered_is_not_handled_again_but_remembered_when_it_comes_again",
        ),
    ),
    Break(
        promise="an event on the topic of another system is refused",
        file="messaging/middleware/_validation.py",
        old="context.topic.startswith(prefix) and context.topic != topic_of(event)",
        new="not context.topic.startswith(prefix)",
        caught_by=(f"{MIDDLEWARES}::test_an_event_on_the_topic_of_another_system_is_refused",),
    ),
    Break(
        promise="a retried publish that may be stored ends as unconfirmed",
        file="messaging/middleware/_retry.py",
        old="if self._doubt is not None:",
        new="if self._doubt is error:",
        caught_by=(f"{POLICIES}::test_a_publish_that_may_be_stored_is_told_so_whatever_came_last",),
    ),
)

ON_THE_WIRE: tuple[Break, ...] = (
    Break(
        promise="the correlation id travels as an extension",
        file="messaging/_cloudevents.py",
        old="correlation_id or event.correlation_id,",
        new="None,",
        caught_by=(f"{CLOUDEVENTS}::test_a_correlation_id_given_goes_before_the_events_own",),
    ),
    Break(
        promise="an unknown type is told apart from bad bytes",
        file="messaging/_cloudevents.py",
        old="unknown = UnknownEventTypeError(",
        new="unknown = MessageDecodeError(",
        caught_by=(f"{CLOUDEVENTS}::test_an_unregistered_type_is_told_apart",),
    ),
    Break(
        promise="one bad member of a batch does not harm the others",
        file="messaging/_cloudevents.py",
        old="return Undecodable(payload, error)",
        new="raise error",
        caught_by=(f"{CLOUDEVENTS}::test_one_bad_member_does_not_harm_the_rest_of_a_batch",),
    ),
    Break(
        promise="data of an older version are upcast even when they happen to fit",
        file="messaging/_upcasting.py",
        old="if version < entry.version:",
        new="if version < 0:",
        caught_by=(f"{UPCASTING}::test_older_data_that_happen_to_fit_are_upcast_all_the_same",),
    ),
    Break(
        promise="unknown fields of a newer version are tolerated",
        file="messaging/_upcasting.py",
        old="if version < entry.version:",
        new="if version != entry.version:",
        caught_by=(f"{UPCASTING}::test_every_version_becomes_the_event_of_today",),
    ),
    Break(
        promise="white space of other kinds is data in a frame",
        file="messaging/brokers/_nats_protocol.py",
        old=r"""buffer[at:end].replace(b"\t", b" ").split(b" ")""",
        new="""buffer[at:end].split()""",
        caught_by=(f"{WIRE}::test_only_spaces_and_tabs_separate_the_fields_of_a_frame",),
    ),
    Break(
        promise="the beginning of a frame waits for the rest",
        file="messaging/brokers/_nats_protocol.py",
        old="if after > size:",
        new="if after > size + 2:",
        caught_by=(f"{WIRE}::test_a_message_cut_anywhere_waits_for_its_rest",),
    ),
    Break(
        promise="the parts of a large message are not looked at one by one",
        file="messaging/brokers/_nats_protocol.py",
        old="if len(kept) < self._wanted:",
        new="if len(kept) < 0:",
        caught_by=(f"{SOCKET}::test_a_large_message_in_many_reads_is_put_together_once",),
    ),
    Break(
        promise="what is sent in one turn goes out in one write",
        file="messaging/brokers/_nats_socket.py",
        old="        self._frames_bytes += len(frame)\n        if not self._due:\n",
        new="        self._frames_bytes += len(frame)\n        self.write_out()\n        if not self._due:\n",
        caught_by=(f"{SOCKET}::test_what_is_sent_in_one_turn_goes_out_in_one_write",),
    ),
    Break(
        promise="while the socket is full, what is sent stays and counts",
        file="messaging/brokers/_nats_socket.py",
        old="if line is None or line.paused or line.over or not self._frames:",
        new="if line is None or line.over or not self._frames:",
        caught_by=(f"{SOCKET}::test_a_peer_that_reads_slowly_makes_senders_wait_and_loses_nothing[False]",),
    ),
    Break(
        promise="what waits is written when the socket has room again",
        file="messaging/brokers/_nats_socket.py",
        old="            self._wire.write_out()\n",
        new="            pass\n",
        caught_by=(f"{SOCKET}::test_a_peer_that_reads_slowly_makes_senders_wait_and_loses_nothing[False]",),
    ),
    Break(
        promise="waiting for room ends with the connection",
        file="messaging/brokers/_nats_socket.py",
        old="            self.over = True\n            self.wake()\n",
        new="            self.over = True\n",
        caught_by=(f"{SOCKET}::test_waiting_for_room_ends_when_the_connection_does",),
    ),
    Break(
        promise="what was read before the take over is handled",
        file="messaging/brokers/_nats_socket.py",
        old="        if early:\n",
        new="        if not early:\n",
        caught_by=(f"{SOCKET}::test_what_was_read_before_the_take_over_is_handled_first[False]",),
    ),
    Break(
        promise="a socket that was paused before the take over is read again",
        file="messaging/brokers/_nats_socket.py",
        old="            self.transport.resume_reading()\n",
        new="            pass\n",
        caught_by=(f"{SOCKET}::test_what_was_read_before_the_take_over_is_handled_first[False]",),
    ),
    Break(
        promise="nothing of a former connection is handled",
        file="messaging/brokers/_nats_socket.py",
        old="            line.over = True\n            line.wake()\n",
        new="            line.wake()\n",
        caught_by=(f"{SOCKET}::test_a_connection_that_was_let_go_is_not_heard_any_more",),
    ),
    Break(
        promise="what was not written is not sent on the next connection",
        file="messaging/brokers/_nats_socket.py",
        old="        if not keep:\n            self._frames = []\n",
        new="        if not keep:\n",
        caught_by=(f"{SOCKET}::test_a_connection_that_is_cut_in_a_frame_ends_and_the_next_one_begins_anew",),
    ),
    Break(
        promise="a defect in handling a frame ends the connection and is logged",
        file="messaging/brokers/_nats_socket.py",
        old="            self.end(error)\n        except Exception as error:  # boundary: asyncio",
        new="            self.end(error)\n        except LookupError as error:  # boundary: asyncio",
        caught_by=(f"{SOCKET}::test_what_cannot_be_handled_ends_the_connection_once_and_is_told",),
    ),
    Break(
        promise="a damaged header block ends no connection",
        file="messaging/brokers/_nats_protocol.py",
        old="""headers[name.strip().decode("utf-8", "backslashreplace")]""",
        new="""headers[name.strip().decode("utf-8")]""",
        caught_by=(f"{WIRE}::test_of_a_damaged_header_block_what_can_be_read_is_read",),
    ),
    Break(
        promise="a header value cannot smuggle in another header",
        file="messaging/brokers/_wire_rules.py",
        old="_CONTROL.search(value) is not None or value",
        new="value",
        caught_by=(f"{WIRE}::test_a_header_that_would_not_arrive_unchanged_is_refused",),
    ),
    Break(
        promise="secrets of the configuration do not show",
        file="messaging/brokers/_nats_config.py",
        old="f\"{field}='[redacted]'\" for",
        new='f"{field}={getattr(self, field)!r}" for',
        caught_by=(f"{CONFIG}::test_secrets_do_not_show",),
    ),
    Break(
        promise="a client reconnects for ever by default",
        file="messaging/brokers/_nats_config.py",
        old="max_reconnect_attempts: int = -1",
        new="max_reconnect_attempts: int = 60",
        caught_by=(f"{WIRE}::test_a_client_reconnects_for_ever_unless_told_otherwise",),
    ),
    Break(
        promise="a command does not wait behind telemetry",
        file="messaging/brokers/_lanes.py",
        old="if matches(pattern, subject):",
        new="if matches(pattern, subject) or subject:",
        caught_by=(f"{LANES}::test_a_message_takes_the_lane_of_its_subject",),
    ),
    Break(
        promise="a subscription that can match telemetry takes its lane",
        file="messaging/brokers/_lanes.py",
        old="any(overlap(bulk, pattern) for",
        new="any(bulk == pattern for",
        caught_by=(f"{LANES}::test_a_subscription_takes_the_bulk_lane_if_it_can_match_anything_of_bulk",),
    ),
)

HANDLED: tuple[Break, ...] = (
    Break(
        promise="the event type is taken from the handler's annotation",
        file="messaging/_handlers.py",
        old="wanted = annotated if event_type is None else",
        new="wanted = (PolarisEvent,) if event_type is None else",
        caught_by=(f"{SUBSCRIBING}::test_the_events_are_taken_from_the_annotation",),
    ),
    Break(
        promise="a handler that hangs is cancelled",
        file="messaging/_router.py",
        old="deadline.begin()",
        new="deadline.end()",
        caught_by=(f"{REDELIVERY}::test_a_handler_that_hangs_is_cancelled_and_its_message_comes_again",),
    ),
    Break(
        promise="a cancellation that escapes a handler is a failure of its message",
        file="messaging/_invocation.py",
        old="        if is_being_cancelled():\n",
        new="        if is_being_cancelled() is not None:\n",
        caught_by=(f"{STRAY}::test_a_message_whose_handler_always_lets_a_cancellation_escape_is_put_aside",),
    ),
    Break(
        promise="a message is acknowledged only after its handler returned",
        file="messaging/_router.py",
        old="await run(begun)",
        new="await item.delivery.ack() or await run(begun)",
        caught_by=(f"{REDELIVERY}::test_a_message_is_acknowledged_after_its_handler_returned_not_before",),
    ),
    Break(
        promise="what failed comes again with a delay",
        file="messaging/_settlement.py",
        old="item.delivery.nak(delay_s=delay_s)",
        new="item.delivery.nak(delay_s=0.0)",
        caught_by=(
            f"{REDELIVERY}::test_a_failed_message_comes_again_with_growing_delays_and_is_then_put_aside",
            f"{REDELIVERY}::test_retry_after_of_the_error_is_honoured",
        ),
    ),
    Break(
        promise="an error with retry_after is not tried again before that",
        file="messaging/_redelivery.py",
        old="delay_s = max(delay_s, float(retry_after))",
        new="delay_s = min(delay_s, float(retry_after))",
        caught_by=(f"{REDELIVERY}::test_retry_after_of_the_error_is_honoured",),
    ),
    Break(
        promise="an error that repeating cannot help is put aside at once",
        file="messaging/_redelivery.py",
        old="if isinstance(error, PolarisException) and error.retryable is False:",
        new="if isinstance(error, PolarisException) and error.retryable == 0.5:",
        caught_by=(f"{REDELIVERY}::test_an_error_that_repeating_cannot_help_puts_aside_at_once",),
    ),
    Break(
        promise="after max_deliveries failures a message is put aside",
        file="messaging/_redelivery.py",
        old="return failures >= self.max_deliveries or",
        new="return failures > self.max_deliveries or",
        caught_by=(f"{REDELIVERY}::test_a_failed_message_comes_again_with_growing_delays_and_is_then_put_aside",),
    ),
    Break(
        promise="a rejection on this side is no failure of the message",
        file="messaging/_redelivery.py",
        old="return isinstance(error, (BulkheadError, CircuitBreakerError, RateLimitExceededError, ProbeFailed))",
        new="return isinstance(error, ())",
        caught_by=(f"{REDELIVERY}::test_a_rejection_on_this_side_is_no_failure_of_the_message",),
    ),
    Break(
        promise="rejections without end are bounded by the deliveries",
        file="messaging/_redelivery.py",
        old="or attempt >= self.deliveries_max",
        new="",
        caught_by=(f"{REDELIVERY}::test_rejections_without_end_are_bounded_by_the_deliveries",),
    ),
    Break(
        promise="the open breaker of a subscription burns no deliveries",
        file="messaging/_guard.py",
        old="if begun or self._ended.is_set():",
        new="if begun or self._ended is not None:",
        caught_by=(f"{GUARD}::test_while_the_breaker_is_open_only_what_failed_goes_back_to_the_broker",),
    ),
    Break(
        promise="a probe that hangs for longer than a break uses up no try of its message",
        file="messaging/_guard.py",
        old="return counts and self._breaker.state is not CircuitBreakerState.CLOSED",
        new="return counts and self._breaker.state is CircuitBreakerState.OPEN",
        caught_by=(
            f"{GUARD}::test_an_outage_in_which_calls_hang_for_longer_than_a_break_puts_nothing_aside[1.5]",
            f"{GUARD}::test_an_outage_in_which_calls_hang_for_longer_than_a_break_puts_nothing_aside[5.0]",
        ),
    ),
    Break(
        promise="a bad message does not hold up an ordered subscription for ever under a breaker",
        file="messaging/_handling.py",
        old="return item.probes >= PROBES_MAX",
        new="return False",
        caught_by=(
            f"{GUARD}::test_a_bad_message_that_nothing_can_overtake_is_put_aside_after_a_hundred_probes[ordered]",
            f"{GUARD}::test_a_bad_message_that_nothing_can_overtake_is_put_aside_after_a_hundred_probes[cumulative]",
        ),
    ),
    Break(
        promise="an open breaker does not hold up the end",
        file="messaging/_guard.py",
        old="self._ended.set()",
        new="self._ended.clear()",
        caught_by=(f"{GUARD}::test_an_open_breaker_costs_no_grace_period_at_the_end",),
    ),
    Break(
        promise="a long handler keeps its message by heartbeats",
        file="messaging/_settlement.py",
        old="await item.delivery.in_progress()",
        new="item.delivery.in_progress",
        caught_by=(f"{REDELIVERY}::test_a_long_handler_keeps_its_message_by_heartbeats",),
    ),
    Break(
        promise="what succeeded of a batch message is not repeated",
        file="messaging/_handling.py",
        old="done.add(index)",
        new="done.discard(index)",
        caught_by=(f"{REDELIVERY}::test_what_succeeded_of_a_batch_message_is_not_repeated",),
    ),
)

IN_ORDER: tuple[Break, ...] = (
    Break(
        promise="the messages of one key are handled one after the other",
        file="messaging/_key_order.py",
        old="place.ahead += 1",
        new="place.ahead += 0",
        caught_by=(f"{KEY_ORDER}::test_one_key_is_in_order_and_others_run_beside_it[topic]",),
    ),
    Break(
        promise="what failed is tried again before what comes after it",
        file="messaging/_ordering.py",
        old="if not self._settlement.holds(item):",
        new="if item.delivery:",
        caught_by=(f"{KEY_ORDER}::test_what_failed_is_tried_again_before_what_comes_after_it",),
    ),
    Break(
        promise="conflation keeps the newest of each system",
        file="messaging/_shedding.py",
        old="if known is None or (delivery.sequence or 0) >= (known.delivery.sequence or 0):",
        new="if known is None:",
        caught_by=(f"{SHEDDING}::test_one_who_falls_behind_gets_the_newest_of_each_system",),
    ),
    Break(
        promise="what is too old when its turn comes is passed over",
        file="messaging/_shedding.py",
        old="if age_s > self._stale_after_s:",
        new="if age_s > 1e9:",
        caught_by=(f"{SHEDDING}::test_what_is_too_old_when_its_turn_comes_is_passed_over",),
    ),
    Break(
        promise="a gap in the numbers of a publisher is counted",
        file="messaging/_sequences.py",
        old="missed = number - known.last - 1",
        new="missed = 0",
        caught_by=(f"{SEQUENCES}::test_a_subscriber_is_told_of_what_was_lost_and_of_what_came_late",),
    ),
    Break(
        promise="an event that is published again is no gap",
        file="messaging/_sequences.py",
        old="if event_id > self._newest:",
        new="if event_id:",
        caught_by=(f"{SEQUENCES}::test_an_event_that_failed_keeps_its_number_when_it_is_published_again",),
    ),
    Break(
        promise="a paused subscription begins nothing",
        file="messaging/_router.py",
        old="                if self._resumed is not None:\n",
        new="                if self._resumed is not None and self._returning:\n",
        caught_by=(f"{PAUSE_START_REPLAY}::test_a_paused_subscription_begins_nothing_and_goes_on_where_it_was",),
    ),
    Break(
        promise="a replay ends where it was told to",
        file="messaging/_replay.py",
        old="delivery.stored_at >= until:",
        new="delivery.stored_at < until:",
        caught_by=(f"{PAUSE_START_REPLAY}::test_a_replay_hands_over_the_window_in_order_and_ends",),
    ),
    Break(
        promise="a replay is complete over losses of the connection",
        file="messaging/_replay.py",
        old="start=Start.at_sequence(seen + 1)",
        new="start=Start.at_sequence(seen + 2)",
        caught_by=(f"{PAUSE_START_REPLAY}::test_a_replay_stays_complete_and_in_order_over_losses_of_the_connection",),
    ),
    Break(
        promise="a group shares what comes, each message once",
        file="messaging/_inbound.py",
        old="group = None if position.group is None else _legal_name(position.group)",
        new="group = None",
        caught_by=(f"{SUBSCRIBING}::test_a_group_shares_and_others_get_everything",),
    ),
    Break(
        promise="no more than in_flight_max are taken",
        file="messaging/_settlement.py",
        old="while self.room < enough",
        new="while self.room < -1_000_000",
        caught_by=(f"{SUBSCRIBING}::test_no_more_than_in_flight_max_is_taken",),
    ),
    Break(
        promise="a consumer that goes deaf is attached anew",
        file="messaging/_sources.py",
        old="if self._deaf_checks >= DEAF_CHECKS:",
        new="if self._deaf_checks >= 10**9:",
        caught_by=(f"{REDELIVERY}::test_a_consumer_that_goes_deaf_is_attached_anew",),
    ),
    Break(
        promise="drain handles what was accepted",
        file="messaging/_router.py",
        old="self._returning = self._durable and not finish_all",
        new="self._returning = self._durable",
        caught_by=(f"{STOPPING}::test_drain_handles_everything_that_was_accepted",),
    ),
    Break(
        promise="stop hands back what a handler could not finish",
        file="messaging/_router.py",
        old="await self._settlement.hand_back_all()",
        new="self._settlement.hand_back_all",
        caught_by=(f"{STOPPING}::test_a_handler_over_the_grace_period_is_cancelled_and_its_message_handed_back",),
    ),
)

ANSWERED: tuple[Break, ...] = (
    Break(
        promise="the typed error of a responder reaches the one who asked",
        file="messaging/_requests.py",
        old="if isinstance(event, RequestFailure):",
        new="if event is None:",
        caught_by=(f"{REQUESTS}::test_a_failed_handler_is_told_from_silence",),
    ),
    Break(
        promise="a topic that a stream stores cannot be asked",
        file="messaging/_requests.py",
        old="if stream is not None:",
        new="if not topic:",
        caught_by=(f"{REQUESTS}::test_a_topic_that_a_stream_stores_cannot_be_asked",),
    ),
    Break(
        promise="a request that nobody listens to ends at once",
        file="messaging/brokers/_memory.py",
        old="if not self.hub.fan_out(message.subject, delivery):",
        new="if self.hub.fan_out(message.subject, delivery) < 0:",
        caught_by=(
            f"{REQUESTS}::test_nobody_listening_is_noticed_at_once",
            f"{BROKER}[test_a_request_that_nobody_listens_to_ends_at_once]",
        ),
    ),
)

PUT_ASIDE: tuple[Break, ...] = (
    Break(
        promise="a message is given up only after its dead letter is stored",
        file="messaging/_settlement.py",
        old="            return error\n",
        new="            return None\n",
        caught_by=(f"{REDELIVERY}::test_a_message_is_given_up_only_after_its_dead_letter_is_stored",),
    ),
    Break(
        promise="a dead letter keeps the original bytes",
        file="messaging/_dead_letters.py",
        old="            payload=payload,\n            payload_bytes=",
        new='            payload=b"",\n            payload_bytes=',
        caught_by=(f"{REDELIVERY}::test_bytes_that_are_no_event_are_put_aside_at_once_with_their_headers",),
    ),
    Break(
        promise="a dead letter keeps the original headers",
        file="messaging/_dead_letters.py",
        old="for name, value in list(delivery.headers.items())[:64]}",
        new="for name, value in list(delivery.headers.items())[:0]}",
        caught_by=(f"{REDELIVERY}::test_bytes_that_are_no_event_are_put_aside_at_once_with_their_headers",),
    ),
    Break(
        promise="a dead letter breeds no other",
        file="messaging/_settlement.py",
        old="or delivery.subject.startswith(DEAD_LETTER_PREFIX):",
        new="or delivery.subject.startswith(DEAD_LETTER_PREFIX * 2):",
        caught_by=(f"{DEAD_LETTERS}::test_dead_letters_can_be_subscribed_to_and_never_breed",),
    ),
)

IN_MEMORY: tuple[Break, ...] = (
    Break(
        promise="nothing that is pushed overtakes what waits in memory",
        file="messaging/brokers/_memory_core.py",
        old="self._at_once is not None and not self._busy:",
        new="self._at_once is not None:",
        caught_by=(f"{TAKING}::test_nothing_overtakes_what_waits[memory]",),
    ),
    Break(
        promise="nothing that is pushed by a server overtakes what waits",
        file="messaging/brokers/_nats_subscription.py",
        old="self._at_once is not None and not self._busy and",
        new="self._at_once is not None and",
        caught_by=(f"{TAKING}::test_nothing_overtakes_what_waits[nats]",),
    ),
    Break(
        promise="what is not settled comes again",
        file="messaging/brokers/_memory_streams.py",
        old="self._schedule(record.sequence, unsettled, self.spec.ack_wait_s)",
        new="self._schedule(record.sequence, unsettled, 1e9)",
        caught_by=(f"{BROKER}[test_an_unsettled_message_comes_again]",),
    ),
    Break(
        promise="a message id is remembered for the window and no longer",
        file="messaging/brokers/_memory_streams.py",
        old="if self._seen[oldest][1] > limit_s:",
        new="if self._seen[oldest][1] > 0:",
        caught_by=(f"{OUTGOING}::test_a_message_id_is_forgotten_when_its_window_is_over",),
    ),
    Break(
        promise="a durable position is taken up where it was left",
        file="messaging/brokers/_memory_streams.py",
        old="        known = self.positions.get(spec.durable)\n",
        new="        known = None\n",
        caught_by=(
            f"{BROKER}[test_a_consumer_goes_on_where_another_client_left_it]",
            f"{SUBSCRIBING}::test_a_durable_position_begins_with_everything_and_is_taken_up_again",
        ),
    ),
    Break(
        promise="a position may begin at a time",
        file="messaging/brokers/_memory_streams.py",
        old="if record.stored_at >= start.time)",
        new="if record.stored_at > start.time)",
        caught_by=(f"{BROKER}[test_a_consumer_begins_with_the_first_message_stored_at_or_after_a_time]",),
    ),
)

BREAKS: tuple[Break, ...] = (
    *PUBLISHED,
    *TOPICS,
    *IN_THE_CHAIN,
    *ON_THE_WIRE,
    *HANDLED,
    *IN_ORDER,
    *ANSWERED,
    *PUT_ASIDE,
    *IN_MEMORY,
)
