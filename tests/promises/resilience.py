"""The promises of `polaris.resilience`, each with the edit that breaks it and the tests that notice."""

from __future__ import annotations

from tests.promises._break import Break

BREAKER = "tests/unit/resilience/test_breaker.py"
WINDOWS = "tests/unit/resilience/test_breaker_windows.py"
RETRY = "tests/unit/resilience/test_retry.py"
TIMEOUT = "tests/unit/resilience/test_timeout.py"
BULKHEAD = "tests/unit/resilience/test_bulkhead.py"
ADAPTIVE = "tests/unit/resilience/test_adaptive_limit.py"
RATE_LIMITER = "tests/unit/resilience/test_rate_limiter.py"
PIPELINE = "tests/unit/resilience/test_pipeline.py"
HEDGE = "tests/unit/resilience/test_hedge.py"
CHAOS = "tests/unit/resilience/test_chaos.py"
REJECTIONS = "tests/unit/resilience/test_rejections.py"
SIGNALS = "tests/unit/resilience/test_signals.py"
WALL_CLOCK = "tests/unit/resilience/test_wall_clock.py"
FALLBACK = "tests/unit/resilience/test_fallback.py"
THROTTLE = "tests/unit/resilience/test_throttle.py"
IMPORT = "tests/unit/resilience/test_import.py"
VIRTUAL_TIME = "tests/unit/resilience/test_virtual_time.py"
INSTANT_CLOCK = "tests/unit/resilience/test_instant_clock.py"
DEFAULTS = "tests/unit/resilience/test_defaults.py"
THREADS = "tests/property/test_breaker_threads.py"
DELAYS = "tests/property/test_retry_delays.py"
NESTING = "tests/property/test_resilience_nesting.py"
PERMITS = "tests/property/test_bulkhead_permits.py"

BREAKING: tuple[Break, ...] = (
    Break(
        promise="half-open admits at most half_open_max_calls probes",
        file="resilience/_breaker.py",
        old="return len(probes) < self.config.half_open_max_calls",
        new="return len(probes) <= self.config.half_open_max_calls",
        caught_by=(f"{BREAKER}::test_of_fifty_concurrent_callers_only_the_permitted_probes_pass",),
    ),
    Break(
        promise="an outcome from an older epoch changes nothing",
        file="resilience/_breaker.py",
        old="if epoch != self._epoch:",
        new="if epoch < 0:",
        caught_by=(
            f"{BREAKER}::test_a_stale_failure_does_not_open_it_again",
            f"{BREAKER}::test_a_stale_probe_neither_counts_nor_gives_back_a_permit_of_the_next_half_open",
        ),
    ),
    Break(
        promise="a call that comes while the state changes belongs to the older epoch",
        file="resilience/_breaker.py",
        old="""            self._open_until = self._now() + break_s
            self._opened_total += 1
        elif state is CLOSED:
            self._failed_breaks = 0
        # The epoch last: callers read it, then the state, without the lock; a new epoch with an old state would count.
        self._state_text = state.value
        self._state = state
        self._epoch += 1
""",
        new="""            self._epoch += 1
            self._open_until = self._now() + break_s
            self._opened_total += 1
        else:
            self._epoch += 1
            self._failed_breaks = 0 if state is CLOSED else self._failed_breaks
        self._state_text = state.value
        self._state = state
""",
        caught_by=(f"{BREAKER}::test_a_call_that_comes_while_the_state_changes_counts_in_neither_epoch",),
    ),
    Break(
        promise="a breaker may be shared by threads",
        file="resilience/_breaker.py",
        old="self._lock = threading.Lock()",
        new='self._lock = __import__("contextlib").nullcontext()',
        caught_by=(f"{THREADS}::test_through_many_breaks_the_counts_agree_with_what_the_callers_saw",),
    ),
    Break(
        promise="failure_threshold consecutive failures open the breaker",
        file="resilience/_breaker.py",
        old="if self._failures >= self.config.failure_threshold:",
        new="if self._failures > self.config.failure_threshold:",
        caught_by=(f"{BREAKER}::test_consecutive_failures_open_it_and_the_error_passes_unchanged",),
    ),
    Break(
        promise="a success forgets the failures before it",
        file="resilience/_breaker.py",
        old="""            else:
                self._failures = 0
""",
        new="""            else:
                self._failures += 0
""",
        caught_by=(f"{BREAKER}::test_a_success_forgets_the_failures_before_it",),
    ),
    Break(
        promise="an open breaker says when to come back",
        file="resilience/_breaker.py",
        old="retry_after = self._open_until - now_s if state is OPEN else None",
        new="retry_after = None",
        caught_by=(f"{BREAKER}::test_an_open_breaker_rejects_without_calling_and_says_when_to_come_back",),
    ),
    Break(
        promise="success_threshold successful probes close it",
        file="resilience/_breaker.py",
        old="if self._probe_successes >= self.config.success_threshold:",
        new="if self._probe_successes >= 1:",
        caught_by=(f"{BREAKER}::test_it_takes_as_many_successful_probes_as_configured",),
    ),
    Break(
        promise="a probe that hangs frees its permit after the lease",
        file="resilience/_breaker.py",
        old="if probes[oldest] > now_s:",
        new="if probes[oldest] > 0:",
        caught_by=(f"{BREAKER}::test_a_probe_that_hangs_frees_its_permit_after_the_lease",),
    ),
    Break(
        promise="a cancelled probe gives its permit back",
        file="resilience/_breaker.py",
        old="""        elif probe:
            with self._lock:
                self._probes.pop(probe, None)
""",
        new="",
        caught_by=(
            f"{BREAKER}::test_a_cancelled_probe_gives_its_permit_back_and_decides_nothing",
            f"{BREAKER}::test_a_coroutine_closed_in_mid_call_gives_its_probe_permit_back",
        ),
    ),
    Break(
        promise="the permit of a probe comes back exactly once",
        file="resilience/_breaker.py",
        old="""            with self._lock:
                self._probes.pop(probe, None)
""",
        new="""            with self._lock:
                self._probes and self._probes.popitem()
""",
        caught_by=(f"{BREAKER}::test_the_permit_of_an_expired_probe_comes_back_only_once",),
    ),
    Break(
        promise="a cancelled call is neither success nor failure",
        file="resilience/_verdict.py",
        old="if not isinstance(leaf, Exception) or isinstance(",
        new="if isinstance(",
        caught_by=(
            f"{BREAKER}::test_a_cancelled_call_is_neither_success_nor_failure",
            f"{BREAKER}::test_exit_is_neither_success_nor_failure",
        ),
    ),
    Break(
        promise="local rejections do not trip the breaker",
        file="resilience/_verdict.py",
        old="isinstance(leaf, (*ignored, *LOCAL_REJECTIONS)):",
        new="isinstance(leaf, ignored):",
        caught_by=(
            f"{PIPELINE}::test_rejections_by_the_bulkhead_do_not_trip_the_breaker",
            f"{BREAKER}::test_local_rejections_and_the_callers_own_mistakes_do_not_trip_it[BulkheadRejectedException]",
        ),
    ),
    Break(
        promise="errors that are not retryable do not trip the breaker",
        file="resilience/_verdict.py",
        old="elif not (isinstance(leaf, PolarisException) and leaf.retryable is False):",
        new="else:",
        caught_by=(f"{BREAKER}::test_local_rejections_and_the_callers_own_mistakes_do_not_trip_it[InvalidValueError]",),
    ),
    Break(
        promise="ignored exceptions count nothing",
        file="resilience/_verdict.py",
        old="isinstance(leaf, (*ignored, *LOCAL_REJECTIONS)):",
        new="isinstance(leaf, LOCAL_REJECTIONS):",
        caught_by=(f"{BREAKER}::test_ignored_exceptions_count_nothing",),
    ),
    Break(
        promise="a failure rate over a window opens the breaker",
        file="resilience/_breaker.py",
        old="window.failed / calls >= config.failure_rate_threshold",
        new="window.failed / calls > config.failure_rate_threshold",
        caught_by=(f"{WINDOWS}::test_a_rate_is_reached_exactly_in_spite_of_rounding",),
    ),
    Break(
        promise="a slow-call rate over a window opens the breaker",
        file="resilience/_breaker.py",
        old="slow = self._slow_s is not None and now_s - started_s > self._slow_s",
        new="slow = False",
        caught_by=(
            f"{WINDOWS}::test_slow_calls_open_it_though_they_succeed",
            f"{WINDOWS}::test_a_slow_probe_opens_it_again",
        ),
    ),
    Break(
        promise="fewer calls than minimum_calls decide nothing",
        file="resilience/_breaker.py",
        old="window.calls >= self.config.minimum_calls",
        new="window.calls >= 1",
        caught_by=(f"{WINDOWS}::test_it_opens_at_the_rate_once_there_are_enough_calls",),
    ),
    Break(
        promise="what left the time window does not count",
        file="resilience/_breaker_windows.py",
        old="oldest_kept = int(now_s / self._slice_s) - SLICES + 1",
        new="oldest_kept = 0",
        caught_by=(f"{WINDOWS}::test_calls_older_than_the_time_window_do_not_count",),
    ),
    Break(
        promise="breaks grow while probes fail, up to the maximum",
        file="resilience/_breaker_config.py",
        old="multiplier=self.timeout_multiplier).ceiling_s(failed_breaks + 1)",
        new="multiplier=self.timeout_multiplier).ceiling_s(1)",
        caught_by=(f"{BREAKER}::test_breaks_grow_while_probes_fail_up_to_the_maximum_and_start_anew_after_success",),
    ),
    Break(
        promise="an isolated breaker rejects until it is closed",
        file="resilience/_breaker.py",
        old='self._force(ISOLATED, "isolated by hand")',
        new='self._force(OPEN, "isolated by hand")',
        caught_by=(f"{BREAKER}::test_isolated_rejects_until_closed_and_calls_in_flight_change_nothing",),
    ),
    Break(
        promise="jumps of the wall clock change nothing for a breaker",
        file="resilience/_breaker.py",
        old="self._now = clock.monotonic",
        new="self._now = lambda: clock.now().timestamp()",
        caught_by=(
            f"{WALL_CLOCK}::test_jumps_of_the_wall_clock_change_nothing[breaker]",
            f"{BREAKER}::test_jumps_of_the_wall_clock_change_nothing",
        ),
    ),
    Break(
        promise="rejections by a breaker retain nothing",
        file="resilience/_breaker.py",
        old="self._rejected_total += 1",
        new="""self._rejected_total += 1
                self.__dict__.setdefault("kept", []).append(object())""",
        caught_by=(f"{REJECTIONS}::test_a_rejection_leaves_no_object_behind_without_the_collector[open_breaker]",),
    ),
)

RETRYING: tuple[Break, ...] = (
    Break(
        promise="there is no sleep after the last attempt",
        file="resilience/_retry.py",
        old="if attempt >= self.config.max_attempts:",
        new="if attempt > self.config.max_attempts:",
        caught_by=(f"{RETRY}::test_there_is_no_wait_after_the_last_attempt",),
    ),
    Break(
        promise="jitter is applied after the clamp",
        file="resilience/_backoff.py",
        old="return draw(0.0, ceiling_s)",
        new="return min(ceiling_s, draw(0.0, self._base_s * self._multiplier ** min(attempt - 1, 60)))",
        caught_by=(
            f"{DELAYS}::test_the_mean_of_full_jitter_is_that_of_tenacity[10000]",
            f"{DELAYS}::test_jitter_has_the_mean_and_the_spread_of_its_formula_also_at_the_cap[full-0.0-0.5-10000]",
        ),
    ),
    Break(
        promise="decorrelated jitter keeps its spread at the cap",
        file="resilience/_backoff.py",
        old="return draw(low_s, max(low_s, min(self._longest_s, 3 * max(former_s, low_s))))",
        new="return min(self._longest_s, draw(low_s, 3 * max(former_s, low_s)))",
        caught_by=(f"{DELAYS}::test_decorrelated_jitter_keeps_its_spread_at_the_cap",),
    ),
    Break(
        promise="equal jitter waits at least half of the cap",
        file="resilience/_backoff.py",
        old="return draw(ceiling_s / 2, ceiling_s)",
        new="return draw(ceiling_s / 4, ceiling_s)",
        caught_by=(
            f"{DELAYS}::test_jitter_has_the_mean_and_the_spread_of_its_formula_also_at_the_cap[equal-0.5-0.75-1]",
        ),
    ),
    Break(
        promise="no number of attempts overflows",
        file="resilience/_backoff.py",
        old="""    if first_s >= longest_s or steps >= (math.log(longest_s) - math.log(first_s)) / math.log(multiplier):
        return longest_s
    try:
        return min(longest_s, first_s * float(multiplier) ** steps)
    except OverflowError:
""",
        new="""    try:
        return min(longest_s, first_s * float(multiplier) ** steps)
    except ZeroDivisionError:
""",
        caught_by=(
            f"{DELAYS}::test_full_jitter_draws_what_tenacity_would_draw",
            f"{BREAKER}::test_no_number_of_failed_breaks_overflows",
        ),
    ),
    Break(
        promise="retry never retries cancellation",
        file="resilience/_retry.py",
        old="""                    result = await inner(func, operation)
                except Exception as error:""",
        new="""                    result = await inner(func, operation)
                except BaseException as error:""",
        caught_by=(f"{RETRY}::test_cancellation_is_never_retried[attempt]",),
    ),
    Break(
        promise="a wait of a retry is cancelled at once",
        file="resilience/_retry.py",
        old="""                await sleep(delay_s)
""",
        new="""                try:
                    await sleep(delay_s)
                except BaseException:
                    pass
""",
        caught_by=(f"{RETRY}::test_cancellation_is_never_retried[wait]",),
    ),
    Break(
        promise="the total deadline interrupts an attempt that hangs",
        file="resilience/_retry.py",
        old="return Timeout(self._total_s, listeners=self._listeners).bind(run)",
        new="return run",
        caught_by=(f"{RETRY}::test_the_total_timeout_interrupts_an_attempt_that_would_end_much_later",),
    ),
    Break(
        promise="an attempt has its own time limit",
        file="resilience/_retry.py",
        old="inner = Timeout(self.config.attempt_timeout, listeners=self._listeners).bind(inner)",
        new="inner = Timeout(1e6, listeners=self._listeners).bind(inner)",
        caught_by=(f"{RETRY}::test_each_attempt_has_its_own_timeout",),
    ),
    Break(
        promise="a wait that would end after the deadline is not begun",
        file="resilience/_retry.py",
        old="if left_s is not None and delay_s >= left_s:",
        new="if left_s is not None and delay_s < 0:",
        caught_by=(f"{RETRY}::test_a_wait_that_would_end_after_the_deadline_is_not_begun",),
    ),
    Break(
        promise="the last error surfaces with its traceback",
        file="resilience/_retry.py",
        old="reason=reason, cause=error) from error",
        new="reason=reason, cause=error) from error.with_traceback(None)",
        caught_by=(f"{RETRY}::test_when_all_attempts_fail_the_last_error_surfaces_with_its_traceback",),
    ),
    Break(
        promise="an error with retry_after is waited for",
        file="resilience/_retry.py",
        old="if asked_s > delay_s:",
        new="if asked_s < 0:",
        caught_by=(f"{RETRY}::test_an_error_that_asks_for_time_gets_it",),
    ),
    Break(
        promise="retryable of the error decides before any rule",
        file="resilience/_verdict.py",
        old="if isinstance(error, PolarisException) and error.retryable is not None:",
        new="if isinstance(error, PolarisException) and error.retryable:",
        caught_by=(f"{RETRY}::test_the_error_itself_then_the_most_specific_type_decides",),
    ),
    Break(
        promise="retries stay within the budget under total failure",
        file="resilience/_retry.py",
        old="if self.budget is not None and not self.budget.try_spend():",
        new="if self.budget is not None and not self.budget.try_spend() and attempt > 3:",
        caught_by=(f"{RETRY}::test_under_total_failure_retries_stay_within_the_budget",),
    ),
    Break(
        promise="a budget saves up no more than its maximum",
        file="resilience/_retry_budget.py",
        old="self.retries_saved_max = max(1.0, retries_saved_max)",
        new="self.retries_saved_max = 1e9",
        caught_by=(f"{RETRY}::test_a_budget_saves_up_no_more_than_its_maximum",),
    ),
    Break(
        promise="every attempt passes every policy inside the retry",
        file="resilience/_retry.py",
        old="""                    result = await inner(func, operation)
                except Exception""",
        new="""                    result = await (inner(func, operation) if attempt == 1 else func())
                except Exception""",
        caught_by=(
            f"{NESTING}::test_in_no_order_do_retries_or_hedges_get_round_an_admission",
            f"{PIPELINE}::test_every_attempt_asks_the_breaker_and_an_open_breaker_ends_the_attempts",
        ),
    ),
    Break(
        promise="jumps of the wall clock change nothing for a retry budget",
        file="resilience/_retry_budget.py",
        old="self._now = clock.monotonic",
        new="self._now = lambda: clock.now().timestamp()",
        caught_by=(f"{WALL_CLOCK}::test_jumps_of_the_wall_clock_change_nothing[retry with a budget]",),
    ),
)

TIMING: tuple[Break, ...] = (
    Break(
        promise="a timeout interrupts the call",
        file="resilience/_deadline.py",
        old="""            scope.expire()
""",
        new="",
        caught_by=(f"{TIMEOUT}::test_calls_of_one_policy_expire_each_in_its_own_time",),
    ),
    Break(
        promise="the earlier of nested deadlines holds",
        file="resilience/_deadline.py",
        old="if outer is not None and outer.when is not None and outer.when <= when:",
        new="if outer is not None and outer.when is not None and outer.when < 0:",
        caught_by=(
            f"{TIMEOUT}::test_the_deadline_is_visible_inside_and_gone_outside",
            f"{TIMEOUT}::test_tasks_started_inside_inherit_the_deadline_and_are_held_to_it",
        ),
    ),
    Break(
        promise="a cancellation from elsewhere stays a cancellation",
        file="resilience/_deadline.py",
        old="ours = task.uncancel() <= self._cancelling",
        new="ours = task.uncancel() <= self._cancelling + 1",
        caught_by=(f"{TIMEOUT}::test_a_cancellation_that_meets_the_expiry_stays_a_cancellation",),
    ),
    Break(
        promise="nothing is started after the deadline",
        file="resilience/_deadline.py",
        old="if when <= now:",
        new="if when < 0:",
        caught_by=(
            f"{TIMEOUT}::test_nothing_is_started_after_the_deadline",
            f"{RETRY}::test_a_deadline_in_the_past_starts_nothing",
        ),
    ),
    Break(
        promise="running calls of a pipeline share one timer",
        file="resilience/_timeout.py",
        old="operation=operation or name, listeners=listeners, lane=mine)",
        new="operation=operation or name, listeners=listeners)",
        caught_by=(f"{PIPELINE}::test_running_calls_of_a_pipeline_share_one_timer",),
    ),
    Break(
        promise="jumps of the wall clock change nothing for deadlines and limits",
        file="resilience/_deadline.py",
        old="""        return asyncio.get_running_loop().time()
""",
        new="""        return time.time()
""",
        caught_by=(f"{WALL_CLOCK}::test_jumps_of_the_wall_clock_change_nothing[rate limiter]",),
    ),
)

ADMITTING: tuple[Break, ...] = (
    Break(
        promise="no more calls run at once than a bulkhead permits",
        file="resilience/_bulkhead.py",
        old="""if self._active < self._limit:
                self._active += 1""",
        new="""if self._active <= self._limit:
                self._active += 1""",
        caught_by=(
            f"{BULKHEAD}::test_no_more_calls_run_at_once_than_permitted",
            f"{NESTING}::test_in_no_order_do_retries_or_hedges_get_round_an_admission",
        ),
    ),
    Break(
        promise="a full bulkhead rejects at once",
        file="resilience/_bulkhead.py",
        old="if len(self._waiters) >= self.config.max_queued_calls or",
        new="if len(self._waiters) > self.config.max_queued_calls or",
        caught_by=(
            f"{BULKHEAD}::test_full_means_rejected_at_once_and_not_started",
            f"{BULKHEAD}::test_the_queue_is_bounded",
        ),
    ),
    Break(
        promise="waiters are served in order of arrival",
        file="resilience/_bulkhead.py",
        old="self._waiters.popitem(last=False)",
        new="self._waiters.popitem()",
        caught_by=(f"{BULKHEAD}::test_waiters_are_served_in_order_of_arrival_also_when_some_leave",),
    ),
    Break(
        promise="no wake-up is lost when the granted waiter is cancelled",
        file="resilience/_bulkhead.py",
        old="if waiter.done() and not waiter.cancelled() and waiter.result():",
        new="if False:",
        caught_by=(f"{BULKHEAD}::test_a_waiter_cancelled_in_the_tick_of_its_grant_loses_no_wake_up",),
    ),
    Break(
        promise="a permit comes back whatever the call raises",
        file="resilience/_bulkhead.py",
        old="""            finally:
                self._active -= 1
                self._finished += 1
                if self._waiters:
                    self._grant()
""",
        new="""            except asyncio.CancelledError:
                raise
            except BaseException:
                self._active -= 1
                raise
            finally:
                self._finished += 1
                if self._waiters:
                    self._grant()
""",
        caught_by=(f"{BULKHEAD}::test_whatever_a_call_raises_the_permit_comes_back",),
    ),
    Break(
        promise="a permit comes back exactly once",
        file="resilience/_bulkhead.py",
        old="""                self._active -= 1
                self._finished += 1
""",
        new="""                self._active = max(0, self._active - 2)
                self._finished += 1
""",
        caught_by=(
            f"{BULKHEAD}::test_no_more_calls_run_at_once_than_permitted",
            f"{PERMITS}::test_after_any_storm_all_counters_are_zero_and_the_order_was_kept[0]",
        ),
    ),
    Break(
        promise="a wait for a permit ends after max_wait",
        file="resilience/_bulkhead.py",
        old="loop.call_later(self._wait_s, self._give_up, waiter)",
        new="loop.call_later(self._wait_s * 2, self._give_up, waiter)",
        caught_by=(f"{BULKHEAD}::test_waiting_ends_after_max_wait",),
    ),
    Break(
        promise="get_stats says what is going on",
        file="resilience/_bulkhead.py",
        old="queued_calls=len(self._waiters),",
        new="queued_calls=0,",
        caught_by=(f"{BULKHEAD}::test_the_stats_say_what_is_going_on",),
    ),
    Break(
        promise="rejections by a bulkhead retain nothing",
        file="resilience/_bulkhead.py",
        old="self._rejected += 1",
        new="""self._rejected += 1
        self.__dict__.setdefault("kept", []).append(object())""",
        caught_by=(f"{REJECTIONS}::test_a_rejection_leaves_no_object_behind_without_the_collector[full_bulkhead]",),
    ),
    Break(
        promise="a bulkhead follows its adaptive limit",
        file="resilience/_bulkhead.py",
        old="self._limit = max(1, min(self.config.max_concurrent_calls, adaptive.limit))",
        new="self._limit = former",
        caught_by=(f"{ADAPTIVE}::test_a_bulkhead_follows_its_limit_and_loses_no_permit",),
    ),
    Break(
        promise="the AIMD limit follows its formula",
        file="resilience/_adaptive_limit.py",
        old="limit = int(limit * self._ratio)",
        new="limit -= 1",
        caught_by=(f"{ADAPTIVE}::test_aimd_adds_one_when_used_and_multiplies_down_when_calls_time_out",),
    ),
    Break(
        promise="the gradient limit follows its formula",
        file="resilience/_adaptive_limit.py",
        old="target = self._estimate * gradient + self._queue",
        new="target = self._estimate * gradient",
        caught_by=(f"{ADAPTIVE}::test_gradient_follows_its_formula",),
    ),
    Break(
        promise="no more calls start than the rate allows",
        file="resilience/_rate_limiter.py",
        old="self._tokens = min(self._burst, self._tokens + (now_s - self._filled_s) * self._rate_per_s)",
        new="self._tokens += (now_s - self._filled_s) * self._rate_per_s",
        caught_by=(f"{RATE_LIMITER}::test_a_long_quiet_time_saves_up_no_more_than_the_burst",),
    ),
    Break(
        promise="a call whose turn would come too late is rejected at once",
        file="resilience/_rate_limiter.py",
        old="(left_s is not None and wait_s >= left_s)",
        new="(left_s is not None and wait_s < 0)",
        caught_by=(f"{RATE_LIMITER}::test_a_call_whose_turn_would_come_too_late_is_rejected_at_once",),
    ),
    Break(
        promise="rejections by a rate limiter retain nothing",
        file="resilience/_rate_limiter.py",
        old="self._rejected += 1",
        new="""self._rejected += 1
        self.__dict__.setdefault("kept", []).append(object())""",
        caught_by=(f"{REJECTIONS}::test_a_rejection_leaves_no_object_behind_without_the_collector[empty_limiter]",),
    ),
    Break(
        promise="the throttle rejects with the published probability",
        file="resilience/_throttle.py",
        old="(window.calls - self.k * accepts) / (window.calls + 1)",
        new="(window.calls - self.k * accepts) / (window.calls + 2)",
        caught_by=(f"{THROTTLE}::test_a_dead_dependency_is_asked_less_and_less_but_never_given_up",),
    ),
)

COMPOSING: tuple[Break, ...] = (
    Break(
        promise="a fallback answers only the errors it names",
        file="resilience/_fallback.py",
        old="except handles as error:",
        new="except BaseException as error:",
        caught_by=(f"{FALLBACK}::test_other_errors_and_cancellation_pass",),
    ),
    Break(
        promise="the losers of a hedge are cancelled and awaited",
        file="resilience/_hedge.py",
        old="""                await _end(calls)
""",
        new="""                pass
""",
        caught_by=(f"{HEDGE}::test_the_first_success_wins_and_the_loser_is_cancelled_before_the_result_is_returned",),
    ),
    Break(
        promise="the default order of a pipeline is the documented one",
        file="resilience/_pipeline.py",
        old="""            breaker,
            rate_limiter,
            bulkhead,
""",
        new="""            bulkhead,
            rate_limiter,
            breaker,
""",
        caught_by=(f"{PIPELINE}::test_every_policy_has_its_documented_place",),
    ),
    Break(
        promise="a pipeline is composed once",
        file="resilience/_pipeline.py",
        old="        return self._run(func, operation_name or self.name)",
        new="        return self.bind(invoke)(func, operation_name or self.name)",
        caught_by=(f"{PIPELINE}::test_it_is_composed_once_and_not_for_every_call",),
    ),
    Break(
        promise="chaos is off unless enabled",
        file="resilience/_chaos.py",
        old="""            if self.enabled:
""",
        new="""            if True:
""",
        caught_by=(f"{CHAOS}::test_it_is_off_unless_enabled",),
    ),
    Break(
        promise="chaos is the same for the same seed",
        file="resilience/_chaos.py",
        old="self._random = Random(self.config.seed)",
        new="self._random = Random()",
        caught_by=(f"{CHAOS}::test_the_same_seed_gives_the_same_faults_and_delays",),
    ),
    Break(
        promise="a listener that raises changes nothing",
        file="resilience/_signals.py",
        old="except Exception:  # boundary: listeners",
        new="except ZeroDivisionError:  # listeners",
        caught_by=(
            f"{SIGNALS}::test_every_policy_reports_and_a_listener_that_raises_changes_nothing[retry]",
            f"{BREAKER}::test_a_listener_that_raises_changes_nothing_and_the_others_still_hear",
        ),
    ),
    Break(
        promise="every policy reports what it did",
        file="resilience/_signals.py",
        old="""            listener(signal)
""",
        new="""            pass
""",
        caught_by=(f"{SIGNALS}::test_every_policy_reports_and_a_listener_that_raises_changes_nothing",),
    ),
    Break(
        promise="the defaults are the documented ones",
        file="resilience/_bulkhead.py",
        old="""    max_concurrent_calls: int = 10
""",
        new="""    max_concurrent_calls: int = 11
""",
        caught_by=(f"{DEFAULTS}::test_the_defaults_are_those_that_are_documented[BulkheadConfig]",),
    ),
    Break(
        promise="using the policies loads neither bus nor telemetry",
        file="resilience/_signals.py",
        old="""import logging
""",
        new="""import logging

import structlog
""",
        caught_by=(f"{IMPORT}::test_the_room_needs_the_standard_library_and_the_foundation_only",),
    ),
)

TESTING: tuple[Break, ...] = (
    Break(
        promise="virtual time stops at the very moment of the next timer",
        file="testing/_virtual_loop.py",
        old="self.clock.advance_to(scheduled[0].when())",
        new="self.clock.advance_to(scheduled[0].when() + 1.0)",
        caught_by=(f"{VIRTUAL_TIME}::test_timers_fire_in_order_and_exactly_on_time",),
    ),
    Break(
        promise="instant retries use up their deadlines as if they had waited",
        file="testing/_instant.py",
        old="due_s = loop.time() + delay_s",
        new="due_s = loop.time()",
        caught_by=(
            f"{INSTANT_CLOCK}::test_retries_end_as_and_when_they_would_in_virtual_time",
            f"{INSTANT_CLOCK}::test_policies_that_share_the_clock_see_the_wait",
        ),
    ),
)

BREAKS: tuple[Break, ...] = (*BREAKING, *RETRYING, *TIMING, *ADMITTING, *COMPOSING, *TESTING)
