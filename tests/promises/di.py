"""The promises of `polaris.di`, each with the edit that breaks it and the tests that notice."""

from __future__ import annotations

from tests.promises._break import Break

UNIT = "tests/unit/di"
REGISTRATION = f"{UNIT}/test_registration.py"
RESOLUTION = f"{UNIT}/test_resolution.py"
ONCE = f"{UNIT}/test_building_once.py"
SCOPES = f"{UNIT}/test_scopes.py"
VALIDATION = f"{UNIT}/test_validation.py"
LIFE = f"{UNIT}/test_start_and_stop.py"
CHANGES = f"{UNIT}/test_override_and_decorate.py"
PLUGINS = f"{UNIT}/test_plugins_and_graph.py"
DISHKA = "tests/property/test_di_against_dishka.py"

REGISTERING: tuple[Break, ...] = (
    Break(
        promise="a wrong implementation for an interface is refused at registration",
        file="di/_declare.py",
        old="reason = why_not_constructible(cls) or why_not_implementation(cls, interface)",
        new="reason = why_not_constructible(cls)",
        caught_by=(
            f"{REGISTRATION}::test_an_implementation_must_be_a_subclass_of_its_interface",
            f"{REGISTRATION}::test_a_class_without_the_methods_of_a_protocol_is_refused",
        ),
    ),
    Break(
        promise="an abstract class or Protocol without an implementation is refused at registration",
        file="di/_declare.py",
        old="reason = why_not_constructible(cls) or why_not_implementation(cls, interface)",
        new="reason = why_not_implementation(cls, interface)",
        caught_by=(
            f"{REGISTRATION}::test_an_abstract_class_alone_is_refused_with_what_it_lacks",
            f"{REGISTRATION}::test_a_protocol_alone_is_refused",
        ),
    ),
    Break(
        promise="an instance that is none of its interface is refused at registration",
        file="di/_declare.py",
        old="reason = why_not_instance(instance, interface)",
        new='reason = ""',
        caught_by=(f"{REGISTRATION}::test_an_instance_must_fit_its_interface",),
    ),
    Break(
        promise="a Protocol is satisfied by structure",
        file="di/_conformance.py",
        old="    if expected in cls.__mro__:\n",
        new='    if expected not in cls.__mro__:\n        return "it is no subclass"\n    if expected:\n',
        caught_by=(f"{REGISTRATION}::test_a_protocol_is_satisfied_by_structure",),
    ),
    Break(
        promise="a factory without parameters works as it is",
        file="di/_declare.py",
        old="    dependencies = read_dependencies(factory)\n",
        new="    dependencies = read_dependencies(factory)\n    assert dependencies, 'it takes nothing'\n",
        caught_by=(f"{RESOLUTION}::test_factories_of_every_callable_shape_are_injected",),
    ),
    Break(
        promise="the parameters of a factory are injected",
        file="di/_declare.py",
        old="    dependencies = read_dependencies(factory)\n",
        new="    dependencies = ()\n",
        caught_by=(f"{RESOLUTION}::test_factories_of_every_callable_shape_are_injected",),
    ),
    Break(
        promise="signatures are read once, at registration",
        file="di/_wiring.py",
        old="self._fill(dependency) for dependency in registration.dependencies",
        new="self._fill(one)\n"
        "                for one in __import__('polaris.di._signatures').di._signatures.read_dependencies("
        "registration.provider)",
        caught_by=(f"{REGISTRATION}::test_a_signature_is_read_once_when_the_service_is_registered",),
    ),
    Break(
        promise="nothing is written onto user classes",
        file="di/_declare.py",
        old="    dependencies = read_dependencies(provider)\n",
        new="    dependencies = provider.__injected__ = read_dependencies(provider)\n",
        caught_by=(f"{REGISTRATION}::test_nothing_is_written_onto_user_classes",),
    ),
    Break(
        promise="there is no global container",
        file="di/_registrar.py",
        old="self._registry = Registry()",
        new="self._registry = vars(Registrar).get('only') or Registry()\n"
        "        setattr(Registrar, 'only', self._registry)",
        caught_by=(f"{REGISTRATION}::test_two_containers_share_nothing",),
    ),
    Break(
        promise="an Injectable must annotate every constructor parameter at class creation",
        file="di/_injectable.py",
        old="if lacking:",
        new="if len(lacking) > 2:",
        caught_by=(f"{REGISTRATION}::test_an_injectable_must_annotate_every_parameter_when_it_is_defined",),
    ),
    Break(
        promise="an Injectable without its own constructor is fine",
        file="di/_injectable.py",
        old='vars(cls).get("__init__")',
        new='getattr(cls, "__init__")',
        caught_by=(
            f"{REGISTRATION}::test_an_injectable_without_a_constructor_of_its_own_is_fine_whatever_it_inherits",
        ),
    ),
    Break(
        promise="an Injectable may have defaults",
        file="di/_injectable.py",
        old="            and parameter.default is inspect.Parameter.empty\n",
        new="",
        caught_by=(f"{REGISTRATION}::test_an_injectable_may_have_defaults_and_any_number_of_arguments",),
    ),
    Break(
        promise="an Injectable may take *args and **kwargs",
        file="di/_injectable.py",
        old="            and parameter.kind not in _VARIADIC\n",
        new="",
        caught_by=(f"{REGISTRATION}::test_an_injectable_may_have_defaults_and_any_number_of_arguments",),
    ),
)

FILLING: tuple[Break, ...] = (
    Break(
        promise="constructors are wired by their annotations",
        file="di/_wiring.py",
        old="for interface in dependency.interfaces:\n            found",
        new="for interface in dependency.interfaces[:0]:\n            found",
        caught_by=(f"{RESOLUTION}::test_constructors_are_wired_by_their_annotations",),
    ),
    Break(
        promise="annotations may be strings",
        file="di/_annotations.py",
        old="    for namespace in namespaces:\n",
        new="    for namespace in namespaces[:0]:\n",
        caught_by=(f"{RESOLUTION}::test_a_class_local_to_a_function_is_found_behind_its_string_annotation",),
    ),
    Break(
        promise="a default is used only when its type is unregistered",
        file="di/_wiring.py",
        old="        for interface in dependency.interfaces:\n            found",
        new="        if dependency.has_default:\n            return Filling(dependency, omitted=True)\n"
        "        for interface in dependency.interfaces:\n            found",
        caught_by=(f"{RESOLUTION}::test_a_default_is_used_only_when_the_type_is_unregistered",),
    ),
    Break(
        promise="a default is used when its type is unregistered",
        file="di/_wiring.py",
        old="        if dependency.has_default:\n",
        new="        if dependency.has_default and dependency.problem:\n",
        caught_by=(f"{RESOLUTION}::test_a_default_is_used_only_when_the_type_is_unregistered",),
    ),
    Break(
        promise="an optional parameter is None only when its type is unregistered",
        file="di/_wiring.py",
        old="        for interface in dependency.interfaces:\n            found",
        new="        if dependency.allows_none:\n            return Filling(dependency, constant=None)\n"
        "        for interface in dependency.interfaces:\n            found",
        caught_by=(f"{RESOLUTION}::test_an_optional_parameter_is_none_only_when_its_type_is_unregistered",),
    ),
    Break(
        promise="an optional parameter is None when its type is unregistered",
        file="di/_wiring.py",
        old="        if dependency.allows_none:\n",
        new="        if dependency.allows_none and dependency.problem:\n",
        caught_by=(f"{RESOLUTION}::test_an_optional_parameter_is_none_only_when_its_type_is_unregistered",),
    ),
    Break(
        promise="*args and **kwargs are left empty",
        file="di/_signatures.py",
        old="        if parameter.kind in _VARIADIC:\n",
        new="        if parameter.kind in ():\n",
        caught_by=(f"{RESOLUTION}::test_every_kind_of_parameter_is_passed_as_it_must_be",),
    ),
    Break(
        promise="keys tell the registrations of an interface apart",
        file="di/_registry.py",
        old="return interface if key is None else (interface, key)",
        new="return interface",
        caught_by=(f"{RESOLUTION}::test_keys_tell_registrations_of_one_interface_apart",),
    ),
    Break(
        promise="an Annotated qualifier asks for a key",
        file="di/_annotations.py",
        old="for extra in annotation.__metadata__ if isinstance(extra, Key)",
        new="for extra in annotation.__metadata__ if extra is Key",
        caught_by=(f"{RESOLUTION}::test_keys_tell_registrations_of_one_interface_apart",),
    ),
    Break(
        promise="collections receive every registration",
        file="di/_wiring.py",
        old="gather=_SEQUENCES[origin]",
        new="gather=lambda instances: _SEQUENCES[origin](instances[-1:])",
        caught_by=(f"{RESOLUTION}::test_collections_receive_every_registration",),
    ),
    Break(
        promise="resolve_all gives one instance of every registration",
        file="di/_registry.py",
        old="return self._by_interface.get(interface, ())",
        new="return self._by_interface.get(interface, ())[-1:]",
        caught_by=(f"{RESOLUTION}::test_the_last_registration_counts_and_all_of_them_are_in_resolve_all",),
    ),
    Break(
        promise="an open generic serves every choice of its arguments",
        file="di/_registry.py",
        old="return self._close(group[-1], interface)",
        new="return None",
        caught_by=(f"{RESOLUTION}::test_an_open_generic_serves_every_choice_of_its_arguments",),
    ),
    Break(
        promise="type arguments reach the parameters of a generic class",
        file="di/_signatures.py",
        old="substitute(read_annotation(parameter.annotation, namespaces), arguments)",
        new="read_annotation(parameter.annotation, namespaces)",
        caught_by=(f"{RESOLUTION}::test_type_arguments_reach_the_parameters_of_a_generic_class",),
    ),
)

LIVING: tuple[Break, ...] = (
    Break(
        promise="a singleton is built once whatever threads ask at the same time",
        file="di/_slots.py",
        old="            return held\n        _wait_as_thread(",
        new="            return held\n        break\n        _wait_as_thread(",
        caught_by=(f"{ONCE}::test_threads_tasks_and_loops_together_build_one[0]",),
    ),
    Break(
        promise="a singleton is built once whatever tasks of whatever event loops ask at the same time",
        file="di/_slots.py",
        old="            return held\n        await _wait_as_task(",
        new="            return held\n        break\n        await _wait_as_task(",
        caught_by=(
            f"{ONCE}::test_threads_tasks_and_loops_together_build_one[0]",
            f"{ONCE}::test_tasks_that_share_a_scope_build_its_services_once",
        ),
    ),
    Break(
        promise="a cached singleton is never delayed by another's construction",
        file="di/_container.py",
        old='A service that failed to build may be asked for again.\n        """\n',
        new='A service that failed to build may be asked for again.\n        """\n'
        "        with self._lock:\n"
        "            return _resolver.resolve(self.wiring, self.built_ins, self._root, interface, key)\n",
        caught_by=(f"{ONCE}::test_a_cached_singleton_is_had_at_once_while_another_is_built",),
    ),
    Break(
        promise="registration after the first resolve, or in the middle of one, keeps live singletons",
        file="di/_registrar.py",
        old="        always = frozenset(",
        new="        self._root = Store()\n        always = frozenset(",
        caught_by=(
            f"{RESOLUTION}::test_registering_after_the_first_resolve_keeps_live_singletons",
            f"{ONCE}::test_registering_in_the_middle_of_a_build_keeps_what_is_being_built",
        ),
    ),
    Break(
        promise="a scoped service is built once for each scope",
        file="di/_planner.py",
        old="Plan(registration, get, get_async, final=call.is_final, is_scoped=True, is_async=call.is_async)",
        new="Plan(registration, call.sync(), get_async, final=call.is_final, is_scoped=True, is_async=call.is_async)",
        caught_by=(f"{SCOPES}::test_a_scoped_service_is_one_per_scope",),
    ),
    Break(
        promise="a scoped service cannot be had without a scope",
        file="di/_resolver.py",
        old="    if plan.is_scoped and store.is_root:\n",
        new="    if plan.is_scoped and store is None:\n",
        caught_by=(f"{SCOPES}::test_a_scoped_service_cannot_be_had_without_a_scope",),
    ),
    Break(
        promise="a transient service is built for each request",
        file="di/_planner.py",
        old="return _transient_plan(registration, call)",
        new="return _singleton_plan(registration, call, self._wiring.root)",
        caught_by=(f"{RESOLUTION}::test_constructors_are_wired_by_their_annotations",),
    ),
    Break(
        promise="nothing transient is retained",
        file="di/_resolver.py",
        old="    elif plan.final:\n",
        new="    elif vars(wiring).setdefault('kept', []).append(value) or plan.final:\n",
        caught_by=(f"{RESOLUTION}::test_nothing_transient_is_retained",),
    ),
    Break(
        promise="a key is usable after a failed build",
        file="di/_slots.py",
        old="    except BaseException:  # boundary: user code; however it ends, the slot must be free again\n"
        "        _abandon(store, registration, build)\n        raise\n    values[",
        new="    finally:\n        pass\n    values[",
        caught_by=(f"{RESOLUTION}::test_the_error_of_a_constructor_is_the_cause_and_the_path_leads_to_it",),
    ),
    Break(
        promise="a key is usable after a cancelled build",
        file="di/_slots.py",
        old="        value = await make(store)\n    except BaseException:",
        new="        value = await make(store)\n    except Exception:",
        caught_by=(f"{ONCE}::test_a_key_is_usable_after_a_cancelled_build",),
    ),
    Break(
        promise="a failed or cancelled builder hands over to those who wait",
        file="di/_slots.py",
        old="        del store.values[registration]\n    #",
        new="        del store.values[registration]\n    return\n    #",
        caught_by=(f"{ONCE}::test_a_waiter_cancelled_as_it_is_woken_passes_the_turn_on",),
    ),
    Break(
        promise="one who is cancelled as its turn comes, or stands still, keeps nobody else from it",
        file="di/_slots.py",
        old="for waiter in _waiters.pop((store, registration), ()):",
        new="for waiter in list(_waiters.pop((store, registration), ()))[:1]:",
        caught_by=(
            f"{ONCE}::test_a_waiter_cancelled_as_it_is_woken_passes_the_turn_on",
            f"{ONCE}::test_a_build_is_not_handed_to_a_task_whose_thread_stands_still_for_another_who_waits",
        ),
    ),
    Break(
        promise="a cycle through builds inside builds raises instead of hanging",
        file="di/_slots.py",
        old="        yield frame\n        frame = frame.parent\n",
        new="        yield frame\n        return\n",
        caught_by=(f"{ONCE}::test_a_ring_through_a_build_inside_another_raises",),
    ),
    Break(
        promise="a build that is over is no part of a cycle",
        file="di/_slots.py",
        old="if id(build) in seen or store.values.get(registration) is not build:",
        new="if id(build) in seen:",
        caught_by=(f"{ONCE}::test_what_a_task_has_just_built_is_not_held_against_it",),
    ),
    Break(
        promise="cancelling one who waits leaves the build alone",
        file="di/_slots.py",
        old="            await waiter.future\n            return\n",
        new="            try:\n                await waiter.future\n            except asyncio.CancelledError:\n"
        "                held.task.cancel()\n                raise\n            return\n",
        caught_by=(f"{ONCE}::test_a_cancelled_build_hands_over_and_a_cancelled_waiter_changes_nothing",),
    ),
    Break(
        promise="a cycle through factories of one task raises instead of hanging",
        file="di/_slots.py",
        old="_is_of_task(build, task) or _is_ancestor(build, frame)",
        new="False",
        caught_by=(f"{ONCE}::test_two_tasks_that_wait_for_each_others_build_are_told_apart_from_two_that_only_meet",),
    ),
    Break(
        promise="a cycle through factories of threads raises instead of hanging",
        file="di/_slots.py",
        old="lambda build: build.thread == me or _is_ancestor(build, frame)",
        new="lambda build: build is None",
        caught_by=(f"{ONCE}::test_a_cycle_through_the_body_of_a_factory_raises_at_once",),
    ),
)

PROVING: tuple[Break, ...] = (
    Break(
        promise="validate reports all that is missing",
        file="di/_validation.py",
        old="                yield missing_dependency(wiring, [one.name], filling)\n",
        new="                yield missing_dependency(wiring, [one.name], filling)\n                return\n",
        caught_by=(f"{VALIDATION}::test_everything_wrong_is_reported_at_once_with_drawn_paths",),
    ),
    Break(
        promise="validate reports all cycles",
        file="di/_validation.py",
        old='yield DependencyResolutionException("cyclic dependency", path=[step.name for step in chain])\n',
        new='yield DependencyResolutionException("cyclic dependency", path=[step.name for step in chain])\n'
        "            return\n",
        caught_by=(f"{VALIDATION}::test_every_dependency_on_a_cycle_is_in_a_drawing",),
    ),
    Break(
        promise="validate reports all captive dependencies",
        file="di/_validation.py",
        old="            yield captive_scoped(wiring, one)\n",
        new="            yield captive_scoped(wiring, one)\n            return\n",
        caught_by=(f"{VALIDATION}::test_a_singleton_that_wants_the_scope_is_captive",),
    ),
    Break(
        promise="a scoped service is captive behind transients too",
        file="di/_validation.py",
        old="            if above not in found and is_transient(above):\n",
        new="            if above in found and is_transient(above):\n",
        caught_by=(
            f"{VALIDATION}::test_everything_wrong_is_reported_at_once_with_drawn_paths",
            f"{DISHKA}::test_both_know_a_fault_when_they_see_one[captive]",
        ),
    ),
    Break(
        promise="a singleton that keeps a transient with a teardown is captive",
        file="di/_validation.py",
        old="return is_transient(registration) and registration.has_teardown",
        new="return is_transient(registration) and registration is None",
        caught_by=(f"{VALIDATION}::test_a_singleton_that_keeps_a_transient_with_a_teardown_is_captive",),
    ),
    Break(
        promise="all problems come in one ExceptionGroup",
        file="di/_container.py",
        old='raise ExceptionGroup(f"the services cannot be wired: {len(problems)} problems", problems)',
        new="raise problems[0]",
        caught_by=(f"{VALIDATION}::test_everything_wrong_is_reported_at_once_with_drawn_paths",),
    ),
    Break(
        promise="validate builds nothing",
        file="di/_container.py",
        old="        problems = find_problems(self.wiring)\n",
        new="        problems = find_problems(self.wiring)\n"
        "        _resolver.resolve_registration(self.wiring, self.built_ins, self._root, next(iter(self._registry)))\n",
        caught_by=(f"{VALIDATION}::test_a_sound_graph_passes_and_nothing_is_built",),
    ),
    Break(
        promise="a captive dependency is refused at resolution too",
        file="di/_planner.py",
        old="        if captive is not None:\n",
        new="        if captive is registration:\n",
        caught_by=(f"{SCOPES}::test_a_singleton_never_receives_a_scoped_service_not_even_inside_a_scope",),
    ),
    Break(
        promise="the error for something missing draws the path",
        file="di/_planner.py",
        old="path = [one.name for one in self._wiring.path_to(root, lambda one: one is registration)]",
        new="path = [registration.name]",
        caught_by=(f"{RESOLUTION}::test_an_optional_parameter_whose_own_dependency_is_missing_is_an_error",),
    ),
    Break(
        promise="the error for a cycle draws the path",
        file="di/_planner.py",
        old="path=[*names, *error.path])",
        new="path=[registration.name])",
        caught_by=(f"{VALIDATION}::test_a_cycle_raises_at_resolution_with_the_way_that_led_into_it",),
    ),
    Break(
        promise="errors suggest near names",
        file="di/_registry.py",
        old="return list(dict.fromkeys([*others, *(folded[name] for name in close)]))[:_SUGGESTIONS_MAX]",
        new="return []",
        caught_by=(
            f"{RESOLUTION}::test_the_error_for_something_missing_draws_the_path_and_suggests_names",
            f"{RESOLUTION}::test_a_missing_key_suggests_the_keys_there_are",
        ),
    ),
    Break(
        promise="nothing is built when something is missing",
        file="di/_planner.py",
        old="return _singleton_plan(registration, call, self._wiring.store_of(registration))",
        new="plan = _singleton_plan(registration, call, self._wiring.store_of(registration))\n"
        "        plan.sync(self._wiring.root)\n        return plan",
        caught_by=(f"{RESOLUTION}::test_nothing_is_built_when_something_is_missing",),
    ),
)

ENDING: tuple[Break, ...] = (
    Break(
        promise="what a generator has after its yield runs when its scope closes",
        file="di/_teardown.py",
        old="self._finalizers.append(finalizer)",
        new="self._finalizers.append",
        caught_by=(f"{SCOPES}::test_what_a_service_depends_on_is_torn_down_after_it",),
    ),
    Break(
        promise="teardown runs in reverse order of creation",
        file="di/_teardown.py",
        old="        return finalizers[::-1]\n",
        new="        return finalizers\n",
        caught_by=(
            f"{SCOPES}::test_teardown_runs_in_reverse_order_of_creation",
            f"{SCOPES}::test_what_a_service_depends_on_is_torn_down_after_it",
        ),
    ),
    Break(
        promise="every finalizer runs even if one fails",
        file="di/_teardown.py",
        old='            errors.append(noted(error, "closing", finalizer.registration))\n    return errors\n',
        new='            errors.append(noted(error, "closing", finalizer.registration))\n            break\n'
        "    return errors\n",
        caught_by=(f"{SCOPES}::test_every_finalizer_runs_although_others_fail_and_all_errors_come_out",),
    ),
    Break(
        promise="every synchronous finalizer runs even if one fails",
        file="di/_teardown.py",
        old='                errors.append(noted(error, "closing", finalizer.registration))\n'
        "            except BaseException",
        new='                errors.append(noted(error, "closing", finalizer.registration))\n                break\n'
        "            except BaseException",
        caught_by=(f"{SCOPES}::test_synchronous_teardown_gives_all_errors_too",),
    ),
    Break(
        promise="errors of teardown come out together in an ExceptionGroup",
        file="di/_scope.py",
        old='raise ExceptionGroup("teardown failed", errors)',
        new="raise errors[0]",
        caught_by=(
            f"{SCOPES}::test_every_finalizer_runs_although_others_fail_and_all_errors_come_out",
            f"{SCOPES}::test_synchronous_teardown_gives_all_errors_too",
        ),
    ),
    Break(
        promise="every finalizer runs even if the closer is cancelled",
        file="di/_scope.py",
        old="await shielded(self._close_all())",
        new="await self._close_all()",
        caught_by=(f"{SCOPES}::test_cancelling_the_closer_skips_no_finalizer_and_is_delivered_afterwards",),
    ),
    Break(
        promise="the closer's cancellation is delivered after all finalizers have run",
        file="di/_deadline.py",
        old="    if cancellation is None:\n",
        new="    if task.done():\n",
        caught_by=(f"{SCOPES}::test_cancelling_the_closer_skips_no_finalizer_and_is_delivered_afterwards",),
    ),
    Break(
        promise="each finalizer has a deadline",
        file="di/_teardown.py",
        old="within(clock, timeout_s, finalizer.run_async(), operation)",
        new="within(clock, timeout_s * 100, finalizer.run_async(), operation)",
        caught_by=(f"{SCOPES}::test_a_finalizer_that_hangs_is_cut_off_and_the_others_run[False]",),
    ),
    Break(
        promise="singletons are torn down when the container stops",
        file="di/_container.py",
        old="        errors += await root.tear_down_async(self.clock, self.teardown_timeout_s)\n",
        new="        root.closed = True\n",
        caught_by=(f"{SCOPES}::test_singletons_are_torn_down_when_the_container_stops",),
    ),
)

STARTING: tuple[Break, ...] = (
    Break(
        promise="start builds every singleton",
        file="di/_container.py",
        old="        for one in _lifecycle.singletons_in_order(wiring):\n",
        new="        for one in _lifecycle.singletons_in_order(wiring)[:0]:\n",
        caught_by=(f"{LIFE}::test_every_singleton_is_built_by_start_and_nothing_else",),
    ),
    Break(
        promise="start proves the graph before it does anything",
        file="di/_container.py",
        old="            self.validate()\n",
        new="",
        caught_by=(f"{LIFE}::test_start_proves_the_graph_before_it_does_anything",),
    ),
    Break(
        promise="hosted services start in dependency order",
        file="di/_lifecycle.py",
        old="below = max((depth[need] for need in wiring.needs(one)), default=0)",
        new="below = 0",
        caught_by=(
            f"{LIFE}::test_services_start_in_dependency_order_and_stop_in_reverse",
            f"{LIFE}::test_order_is_kept_through_services_that_are_not_hosted",
        ),
    ),
    Break(
        promise="hosted services stop in the reverse order",
        file="di/_lifecycle.py",
        old="level = self._begun.pop()",
        new="level = self._begun.pop(down_to)",
        caught_by=(f"{LIFE}::test_services_start_in_dependency_order_and_stop_in_reverse",),
    ),
    Break(
        promise="independent services start and stop side by side",
        file="di/_lifecycle.py",
        old="levels.setdefault(depth[one], [])",
        new="levels.setdefault(len(levels), [])",
        caught_by=(f"{LIFE}::test_independent_services_start_and_stop_side_by_side",),
    ),
    Break(
        promise="each start has a deadline",
        file="di/_lifecycle.py",
        old="within(self._clock, self._start_timeout_s, one.start()",
        new="within(self._clock, 10_000, one.start()",
        caught_by=(f"{LIFE}::test_a_start_that_hangs_is_cut_off_at_its_own_deadline",),
    ),
    Break(
        promise="each stop has a deadline",
        file="di/_lifecycle.py",
        old="within(self._clock, self._stop_timeout_s, one.stop()",
        new="within(self._clock, 10_000, one.stop()",
        caught_by=(f"{LIFE}::test_every_stop_runs_although_others_fail_or_hang",),
    ),
    Break(
        promise="all starts together have a deadline",
        file="di/_container.py",
        old="within(self.clock, timeout_s, self._start_all(), ",
        new="within(self.clock, 10_000, self._start_all(), ",
        caught_by=(f"{LIFE}::test_all_starts_together_have_a_deadline_too",),
    ),
    Break(
        promise="a failing start rolls back what had begun",
        file="di/_container.py",
        old="errors = await shielded(self._roll_back(running))",
        new="errors = []",
        caught_by=(
            f"{LIFE}::test_a_failing_start_stops_exactly_what_had_begun",
            f"{LIFE}::test_a_failing_start_tears_down_what_was_built_and_may_be_repeated",
        ),
    ),
    Break(
        promise="a cancelled start rolls back what had begun",
        file="di/_container.py",
        old="            except BaseException as error:  # boundary: also",
        new="            except Exception as error:  # boundary: not",
        caught_by=(f"{LIFE}::test_a_cancelled_start_rolls_back_and_stays_cancelled",),
    ),
    Break(
        promise="a start that is cancelled again has ended before its service is stopped",
        file="di/_deadline.py",
        old="        await shielded(_cancel(clock, task))\n        raise\n",
        new="        await _cancel(clock, task)\n        raise\n",
        caught_by=(f"{LIFE}::test_a_start_that_is_cancelled_again_has_ended_before_its_service_is_stopped",),
    ),
    Break(
        promise="a service whose start began is stopped, also if it failed to start",
        file="di/_lifecycle.py",
        old="        begun.append(one)\n        await within(self._clock, self._start_timeout_s, one.start(), "
        'f"starting {one.registration.name}")\n',
        new="        await within(self._clock, self._start_timeout_s, one.start(), "
        'f"starting {one.registration.name}")\n        begun.append(one)\n',
        caught_by=(f"{LIFE}::test_a_failing_start_stops_exactly_what_had_begun",),
    ),
    Break(
        promise="a service whose start did not begin is not stopped",
        file="di/_lifecycle.py",
        old='                raise ExceptionGroup("services failed to start", errors)\n',
        new="                self._begun += levels[levels.index(level) + 1 :]\n"
        '                raise ExceptionGroup("services failed to start", errors)\n',
        caught_by=(f"{LIFE}::test_a_failing_start_stops_exactly_what_had_begun",),
    ),
    Break(
        promise="a second start begins only what is new",
        file="di/_lifecycle.py",
        old="if not self.has_begun(one.instance)",
        new="if one.instance is not None",
        caught_by=(f"{LIFE}::test_starting_twice_starts_once_and_later_only_what_is_new",),
    ),
    Break(
        promise="concurrent starts and stops take turns",
        file="di/_container.py",
        old="            return self._turn\n",
        new="            return asyncio.Lock()\n",
        caught_by=(f"{LIFE}::test_concurrent_starts_and_stops_take_turns",),
    ),
    Break(
        promise="every stop runs even if one fails",
        file="di/_lifecycle.py",
        old="asyncio.gather(*(self._stop_one(one) for one in level), return_exceptions=True)",
        new="asyncio.gather(*(self._stop_one(one) for one in level))",
        caught_by=(f"{LIFE}::test_every_stop_runs_although_others_fail_or_hang",),
    ),
    Break(
        promise="every stop runs even if the caller is cancelled",
        file="di/_container.py",
        old="errors = await shielded(self._shut_down())",
        new="errors = await self._shut_down()",
        caught_by=(f"{LIFE}::test_a_cancelled_stop_still_stops_and_tears_down_everything",),
    ),
)

CHANGING: tuple[Break, ...] = (
    Break(
        promise="a decorator takes the place of the original",
        file="di/_registrar.py",
        old="self._registry.replace(inner, outer)",
        new="self._registry.add(outer)",
        caught_by=(f"{CHANGES}::test_a_decorator_receives_the_original_and_whatever_else_it_needs",),
    ),
    Break(
        promise="a decorator has the lifetime of the original",
        file="di/_declare.py",
        old="    lifetime = inner.lifetime\n",
        new="    lifetime = ServiceLifetime.TRANSIENT\n",
        caught_by=(f"{CHANGES}::test_decorators_stack_and_keep_the_lifetime_and_the_live_original",),
    ),
    Break(
        promise="an override ends with the statement it belongs to",
        file="di/_registrar.py",
        old="self._layers = self._layers[:-1]",
        new="self._layers = self._layers[:]",
        caught_by=(f"{CHANGES}::test_an_override_is_seen_by_all_that_depends_on_it_and_ends_without_a_trace",),
    ),
    Break(
        promise="all that depends on an override is built anew for it",
        file="di/_wiring.py",
        old="return max(candidates, key=ranked.index, default=self.root)",
        new="return self.root",
        caught_by=(
            f"{CHANGES}::test_an_override_is_seen_by_all_that_depends_on_it_and_ends_without_a_trace",
            f"{CHANGES}::test_a_singleton_first_built_inside_an_override_does_not_outlive_it",
        ),
    ),
    Break(
        promise="registrations carry the plugin that made them as their owner",
        file="di/_plugins.py",
        old="    with container.owned_by(point.name):\n",
        new="    if container:\n",
        caught_by=(f"{PLUGINS}::test_plugins_register_their_services_and_own_them",),
    ),
    Break(
        promise="a failing plugin leaves nothing behind",
        file="di/_plugins.py",
        old="            container.discard(point.name)\n",
        new="",
        caught_by=(f"{PLUGINS}::test_a_failing_plugin_leaves_nothing_and_hinders_no_other",),
    ),
    Break(
        promise="a failing plugin hinders no other",
        file="di/_plugins.py",
        old="            errors.append(failure)\n",
        new="            errors.append(failure)\n            break\n",
        caught_by=(f"{PLUGINS}::test_a_failing_plugin_leaves_nothing_and_hinders_no_other",),
    ),
    Break(
        promise="what a plugin registered can be unloaded: stopped, torn down, forgotten",
        file="di/_container.py",
        old="        errors = await self._lifecycle.stop_only(owner)\n        self.discard(owner)\n",
        new="        errors = []\n        self.discard(owner)\n",
        caught_by=(f"{PLUGINS}::test_what_an_owner_registered_can_be_unloaded_while_the_rest_lives",),
    ),
    Break(
        promise="a plugin that others need cannot be unloaded",
        file="di/_container.py",
        old="            refuse_unload(self.wiring, self._registry, owner)\n",
        new="",
        caught_by=(f"{PLUGINS}::test_an_owner_cannot_be_unloaded_while_others_need_it",),
    ),
    Break(
        promise="the graph draws every service and dependency",
        file="di/_diagram.py",
        old="for need in filling.registrations]",
        new="for need in filling.registrations[1:]]",
        caught_by=(f"{PLUGINS}::test_the_graph_shows_every_service_and_dependency",),
    ),
    Break(
        promise="polaris graph services draws the wiring of a node and starts nothing",
        file="cli/_graph.py",
        old="    container = assemble(settings)\n",
        new="    container = assemble(settings)\n    __import__('asyncio').run(container.start())\n",
        caught_by=("tests/unit/cli/test_graph.py::test_nothing_of_the_node_is_built_or_opened",),
    ),
)

BREAKS: tuple[Break, ...] = (*REGISTERING, *FILLING, *LIVING, *PROVING, *ENDING, *STARTING, *CHANGING)
