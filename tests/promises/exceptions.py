"""The promises of `polaris.exceptions`, each with the edit that breaks it and the tests that notice."""

from __future__ import annotations

from tests.promises._break import Break

UNIT = "tests/unit/test_exceptions.py"
SECRETS = "tests/unit/exceptions/test_secrets.py"
ONCE = "tests/unit/exceptions/test_raised_once.py"
RETRYABLE = "tests/unit/exceptions/test_retryable.py"
JOURNEYS = "tests/property/test_exceptions_journeys.py"
CONTEXT = "tests/property/test_exceptions_context.py"
REFERENCE = "tests/docs/test_error_reference.py"

BREAKS: tuple[Break, ...] = (
    # Bounded, JSON-safe.
    Break(
        promise="a message and a text of a context are bounded",
        file="_redaction.py",
        old="    if cut or len(text) > chars_max:\n",
        new="    if cut:\n",
        caught_by=(
            f"{UNIT}::test_a_very_long_message_is_cut[2049]",
            f"{CONTEXT}::test_deep_wide_and_long_contexts_are_cut",
        ),
    ),
    Break(
        promise="a context is bounded in depth",
        file="_redaction.py",
        old="        if depth >= DEPTH_MAX:\n",
        new="        if depth >= 10 * DEPTH_MAX:\n",
        caught_by=(
            f"{UNIT}::test_a_context_of_anything_becomes_json_types",
            f"{CONTEXT}::test_deep_wide_and_long_contexts_are_cut",
        ),
    ),
    Break(
        promise="a context is bounded in width",
        file="_redaction.py",
        old='                copy.append(f"... {len(value) - len(copy)} more")\n                break\n',
        new="                pass\n",
        caught_by=(f"{UNIT}::test_a_context_of_anything_becomes_json_types",),
    ),
    Break(
        promise="cycles in a context end where they begin again",
        file="_redaction.py",
        old="        self._path.add(id(value))\n",
        new="",
        caught_by=(f"{UNIT}::test_a_context_of_anything_becomes_json_types",),
    ),
    Break(
        promise="a context is JSON, whatever numbers are in it",
        file="_redaction.py",
        old="return float(value) if math.isfinite(value) else repr(float(value))",
        new="return float(value)",
        caught_by=(f"{UNIT}::test_a_context_of_anything_becomes_json_types",),
    ),
    # Secrets.
    Break(
        promise="a field with a telling name loses its value",
        file="_redaction.py",
        old="            copy[name] = REDACTED if secret else self.copy(item, depth + 1)\n",
        new="            copy[name] = self.copy(item, depth + 1)\n",
        caught_by=(f"{SECRETS}::test_what_stands_under_a_telling_name_goes_whatever_it_is",),
    ),
    Break(
        promise="a field with a telling name loses its value in a flat record as well",
        file="_redaction.py",
        old="            if secret:\n                copy[name] = REDACTED\n            elif",
        new="            if",
        caught_by=(
            f"{SECRETS}::test_what_stands_under_a_telling_name_goes_whatever_it_is",
            f"{SECRETS}::test_a_flat_record_is_copied_as_any_other",
        ),
    ),
    Break(
        promise="a key in PEM form never comes out",
        file="_redaction.py",
        old="        text = _PEM.sub(REDACTED, text)\n",
        new="        pass\n",
        caught_by=(
            f"{SECRETS}::test_no_form_of_any_error_holds_a_planted_secret",
            f"{SECRETS}::test_no_log_line_of_any_error_holds_a_planted_secret",
        ),
    ),
    Break(
        promise="user and password of a URL never come out",
        file="_redaction.py",
        old='    if separated and "://" in folded and "@" in folded:\n',
        new='    if separated and "://" in folded and "@" not in folded:\n',
        caught_by=(
            f"{SECRETS}::test_no_form_of_any_error_holds_a_planted_secret",
            f"{SECRETS}::test_no_log_line_of_any_error_holds_a_planted_secret",
        ),
    ),
    Break(
        promise="a JSON Web Token never comes out",
        file="_redaction.py",
        old="        text = _JWT.sub(REDACTED, text)\n",
        new="        pass\n",
        caught_by=(f"{SECRETS}::test_no_form_of_any_error_holds_a_planted_secret",),
    ),
    Break(
        promise="a bearer token never comes out",
        file="_redaction.py",
        old='    if "bearer" in folded or',
        new="    if",
        caught_by=(f"{SECRETS}::test_no_form_of_any_error_holds_a_planted_secret",),
    ),
    Break(
        promise="a password or token in a text never comes out",
        file="_redaction.py",
        old='        text = _PAIR.sub(rf"\\1{REDACTED}", text)\n',
        new="        pass\n",
        caught_by=(f"{SECRETS}::test_no_form_of_any_error_holds_a_planted_secret",),
    ),
    Break(
        promise="secrets are redacted at construction, also where the message is worded later",
        file="exceptions.py",
        old="        self.name = clean_texts[name]\n        self.state = clean_texts[state]\n",
        new="        self.name = name\n        self.state = state\n",
        caught_by=(
            f"{SECRETS}::test_an_error_that_is_worded_late_was_redacted_at_construction[CircuitBreakerOpenException]",
            f"{SECRETS}::test_no_form_of_any_error_holds_a_planted_secret[CircuitBreakerOpenException]",
        ),
    ),
    Break(
        promise="what Python keeps of the arguments is forgotten",
        file="exceptions.py",
        old="            _empty_args(self)\n",
        new="            pass\n",
        caught_by=(
            f"{UNIT}::test_what_an_error_was_called_with_is_nowhere_but_in_its_fields",
            f"{SECRETS}::test_an_error_that_is_worded_late_was_redacted_at_construction",
        ),
    ),
    Break(
        promise="the attributes of a class of the user's own are redacted",
        file="exceptions.py",
        old="            _redact_attributes(self.__dict__)\n",
        new="            pass\n",
        caught_by=(
            f"{SECRETS}::test_the_attributes_of_a_class_of_the_users_own_are_redacted",
            f"{SECRETS}::test_a_class_that_sets_message_and_context_itself_brings_no_secret_out_by_that",
        ),
    ),
    Break(
        promise="a text with a secret is never remembered to be clean",
        file="_redaction.py",
        old="    if redacted == exact:\n",
        new="    if redacted:\n",
        caught_by=(
            f"{SECRETS}::test_a_text_that_holds_a_secret_is_never_remembered",
            f"{SECRETS}::test_what_is_remembered_is_redacted_as_if_it_were_not",
        ),
    ),
    Break(
        promise="the memory of clean texts is bounded",
        file="_redaction.py",
        old="    LENGTH_MAX = 2_048\n    TEXT_CHARS_MAX",
        new="    LENGTH_MAX = 1 << 40\n    TEXT_CHARS_MAX",
        caught_by=(f"{SECRETS}::test_the_memory_of_clean_texts_and_names_is_bounded",),
    ),
    Break(
        promise="a foreign cause is described without its secrets",
        file="exceptions.py",
        old="cast(str, redact(cause))\n\n\ndef _rebuild(",
        new='f"{type(cause).__name__}: {cause}"\n\n\ndef _rebuild(',
        caught_by=(
            f"{UNIT}::test_the_inner_form_says_everything_as_json",
            f"{SECRETS}::test_the_cause_is_described_without_its_secrets_and_stays_as_it_is_in_this_process",
        ),
    ),
    # When, where, what.
    Break(
        promise="timestamps are timezone-aware UTC",
        file="exceptions.py",
        old="return datetime.fromtimestamp(self._stamp, UTC)",
        new="return datetime.fromtimestamp(self._stamp)  # noqa: DTZ006",
        caught_by=(f"{UNIT}::test_an_error_knows_when_it_was_made_in_utc",),
    ),
    Break(
        promise="an error carries the correlation id under which it was made",
        file="exceptions.py",
        old="self.correlation_id: str | None = _correlation_now()",
        new="self.correlation_id: str | None = None",
        caught_by=(
            f"{UNIT}::test_the_inner_form_says_everything_as_json",
            f"{UNIT}::test_the_public_form_shows_neither_message_nor_context_nor_cause",
        ),
    ),
    Break(
        promise="a code is stable, and the reference names every one",
        file="exceptions.py",
        old='    code = "polaris.store.full"\n',
        new='    code = "polaris.store.sated"\n',
        caught_by=(
            f"{REFERENCE}::test_a_published_code_stays",
            f"{REFERENCE}::test_the_committed_page_is_what_the_classes_say",
            f"{REFERENCE}::test_the_drawing_shows_the_classes_as_they_are",
        ),
    ),
    Break(
        promise="nothing stored and maybe stored are different errors",
        file="exceptions.py",
        old="class UnconfirmedPublishError(MessageBusError):",
        new="class UnconfirmedPublishError(PublishError):",
        caught_by=(
            f"{UNIT}::test_nothing_stored_and_maybe_stored_are_told_apart_by_their_class",
            f"{REFERENCE}::test_the_drawing_shows_the_classes_as_they_are",
        ),
    ),
    Break(
        promise="retryable is the one source, also for the redelivery of the bus",
        file="messaging/_redelivery.py",
        old="        if isinstance(error, PolarisException) and error.retryable is False:\n            return True\n",
        new="",
        caught_by=(
            f"{RETRYABLE}::test_retry_breaker_and_redelivery_agree_on_an_error[no]",
            "tests/unit/messaging/test_redelivery.py::test_an_error_that_repeating_cannot_help_puts_aside_at_once",
        ),
    ),
    Break(
        promise="an open breaker says when to come again",
        file="exceptions.py",
        old="        self.state = clean_texts[state]\n        self.retry_after = retry_after\n",
        new="        self.state = clean_texts[state]\n        self.retry_after = None\n",
        caught_by=(
            f"{UNIT}::test_an_error_that_is_worded_late_says_all_its_fields_and_may_be_copied_before[breaker]",
            "tests/unit/messaging/test_redelivery.py::test_retry_after_of_the_error_is_honoured",
        ),
    ),
    Break(
        promise="an error of the container draws the dependency path",
        file="exceptions.py",
        old="            lines.append(draw_path((*self.path, service)))\n",
        new="            pass\n",
        caught_by=(f"{UNIT}::test_an_error_of_the_container_draws_the_path_of_the_services",),
    ),
    Break(
        promise="the public form shows no message",
        file="exceptions.py",
        old='            "title": self.title,\n            "status"',
        new='            "title": self.message,\n            "status"',
        caught_by=(f"{UNIT}::test_the_public_form_shows_neither_message_nor_context_nor_cause",),
    ),
    Break(
        promise="the public form shows no context",
        file="exceptions.py",
        old="        return problem\n",
        new="        return problem | self.context\n",
        caught_by=(f"{UNIT}::test_the_public_form_shows_neither_message_nor_context_nor_cause",),
    ),
    # Journeys.
    Break(
        promise="every error comes back from pickle and another process",
        file="exceptions.py",
        old="    def __reduce__(self)",
        new="    def _reduce(self)",
        caught_by=(
            f"{UNIT}::test_an_error_comes_back_equal_from_pickle_and_copy",
            f"{UNIT}::test_every_error_crosses_a_process_pool",
            f"{JOURNEYS}::test_any_error_of_any_class_comes_back_equal_from_another_process[PayloadTooLargeError]",
        ),
    ),
    Break(
        promise="a foreign cause neither hinders the journey nor leaks by it",
        file="exceptions.py",
        old="        if cause is not None and not isinstance(cause, (PolarisException, ForeignCause)):\n",
        new="        if cause is not None and not isinstance(cause, Exception):\n",
        caught_by=(
            f"{UNIT}::test_a_cause_that_cannot_be_pickled_does_not_keep_the_error_from_it",
            f"{SECRETS}::test_no_form_of_any_error_holds_a_planted_secret[PublishError]",
        ),
    ),
    Break(
        promise="a deep copy shares no context",
        file="exceptions.py",
        old="        clone.context = copy.deepcopy(self.context)\n",
        new="",
        caught_by=(f"{UNIT}::test_a_deep_copy_shares_no_context_and_keeps_a_long_one_whole",),
    ),
    Break(
        promise="no instance is raised twice",
        file="messaging/_coalescing.py",
        old="own = _copied(error)",
        new="own = error",
        caught_by=(f"{ONCE}::test_publishers_whose_events_left_together_get_an_error_each",),
    ),
    # Contexts and wrapping.
    Break(
        promise="a context says operation, UTC time and correlation id",
        file="exceptions.py",
        old="        return ours | redact_fields(fields) | ours if fields else ours\n",
        new="        return ours | redact_fields(fields) if fields else ours\n",
        caught_by=(f"{UNIT}::test_a_context_holds_operation_time_id_and_redacted_fields",),
    ),
    Break(
        promise="an error of ours passes a wrapped function unchanged",
        file="exceptions.py",
        old="    return isinstance(error, (PolarisException, StopIteration, StopAsyncIteration))",
        new="    return isinstance(error, (StopIteration, StopAsyncIteration))",
        caught_by=(
            f"{UNIT}::test_an_error_of_ours_passes_as_the_same_instance_however_often_it_is_wrapped",
            f"{UNIT}::test_an_error_of_ours_that_passes_keeps_its_chain_and_its_whole_traceback",
        ),
    ),
    Break(
        promise="a wrapped coroutine function never wraps cancellation",
        file="exceptions.py",
        old="function)(*args, **kwargs)\n            except Exception as foreign:",
        new="function)(*args, **kwargs)\n            except BaseException as foreign:",
        caught_by=(
            f"{UNIT}::test_a_cancelled_task_ends_as_cancelled",
            f"{UNIT}::test_cancellation_exit_and_the_ends_of_iterations_are_never_wrapped",
        ),
    ),
    Break(
        promise="a wrapped function never wraps an exit",
        file="exceptions.py",
        old="            return function(*args, **kwargs)\n        except Exception as foreign:",
        new="            return function(*args, **kwargs)\n        except BaseException as foreign:",
        caught_by=(f"{UNIT}::test_cancellation_exit_and_the_ends_of_iterations_are_never_wrapped",),
    ),
    Break(
        promise="a wrapped error has the foreign one as its cause",
        file="exceptions.py",
        old="                raise translate(foreign) from foreign\n\n        return",
        new="                raise translate(foreign) from None\n\n        return",
        caught_by=(f"{UNIT}::test_a_foreign_error_becomes_ours_with_context_and_cause[failing_async_with]",),
    ),
    Break(
        promise="a wrapped error keeps chain and traceback of the foreign one",
        file="exceptions.py",
        old="            raise translate(foreign) from foreign\n\n    return call",
        new="            raise translate(foreign) from type(foreign)(*foreign.args)\n\n    return call",
        caught_by=(
            f"{UNIT}::test_the_traceback_of_the_foreign_error_is_kept",
            f"{UNIT}::test_the_chain_behind_the_foreign_error_is_kept",
            f"{UNIT}::test_a_foreign_error_becomes_ours_with_context_and_cause[failing_with]",
        ),
    ),
    Break(
        promise="a wrapped error has a context",
        file="exceptions.py",
        old="        context = ErrorContext.create_context(operation, **fields)\n",
        new="        context: dict[str, object] = {}\n",
        caught_by=(f"{UNIT}::test_a_foreign_error_becomes_ours_with_context_and_cause",),
    ),
    # Cost.
)
