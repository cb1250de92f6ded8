"""The process: the one place that wires everything together, starts it and stops it."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from proxy import __version__
from proxy.account.ledger import Accounts, FlowOutcome
from proxy.account.metrics import Counters
from proxy.account.sinks import EventSink, open_sink
from proxy.callouts.registration import rule_of
from proxy.contract import Drain, How
from proxy.engine.budget import Budget
from proxy.engine.stages import protocol_stage
from proxy.errors import SettingsError, SluicegateError
from proxy.flow.hangup import HangupWatch
from proxy.flow.pipes import PipePool
from proxy.flow.services import Services
from proxy.model import Endpoint
from proxy.policy.store import PolicyStore, ReloadResult
from proxy.redirect.guards import SelfGuard
from proxy.redirect.registry import listening, make_provider
from proxy.service.admin import AdminServer
from proxy.service.callouts import load_callouts
from proxy.service.intake import Intake
from proxy.service.listener import open_listeners
from proxy.service.loops import loop_factory
from proxy.service.reauthorise import reauthorise
from proxy.service.redirect_watch import RedirectWatch
from proxy.service.sampled import SampledPolicy
from proxy.settings import Settings

_SWEEP_SECONDS = 1.0

#: Given the sink of event records, the one to use instead: one that looks at them, too.
Observe = Callable[[EventSink | None], EventSink]


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Exit code 0, or 3 when it cannot start.

    Raises SettingsError when a callout that the settings name is not usable.
    """
    try:
        with asyncio.Runner(loop_factory=loop_factory(settings.loop)) as runner:
            runner.run(_serve(settings))
    except SettingsError:
        raise
    except SluicegateError as error:
        print(f"sluicegate: cannot start: {error}", file=sys.stderr)
        return 3
    return 0


async def _serve(settings: Settings) -> None:
    service = Service(settings, asyncio.get_running_loop())
    try:
        await service.start()
        service.take_signals()
        print(service.ready_line(), file=sys.stderr, flush=True)
        await service.stopping.wait()
        await service.drain()
    finally:
        await service.close()


class Service:
    """One worker: start() .. stopping .. drain() .. close()."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        *,
        observe: Observe | None = None,
    ) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        self._loop = loop
        self._started = time.time()
        self._callouts = load_callouts(settings.callouts)
        self._counters = Counters()
        self._counters.set_rules(map(rule_of, self._callouts.names))
        self._sink = open_sink(settings.events.path, self._counters)
        if observe is not None:
            self._sink = observe(self._sink)
        self._accounts = Accounts(
            self._counters, self._sink, wall=time.time, queries=settings.events.log_query
        )
        self._store = PolicyStore(settings.policies_dir(), self._on_reload)
        self._watch = HangupWatch.create(loop)
        self._pipes = PipePool.create() if settings.offload else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_reload: ReloadResult | None = None
        self._policy: SampledPolicy | None = None
        self._redirect: RedirectWatch | None = None
        self._closing: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Policies first, then sockets, the redirect last: nothing arrives too early.

        Guards and redirect rules are made of the ports that were really bound.
        """
        self._store.load_initial()
        settings = self.settings
        wanted = listening(settings.redirect.provider)
        sockets = open_listeners(settings.listen_endpoint(), wanted, ipv6=settings.redirect.ipv6)
        self.listening = [Endpoint.of(sock.getsockname()) for sock in sockets]
        self._closing.extend(sock.close for sock in sockets)
        self._admin = self._make_admin(settings.admin_endpoint())
        await self._admin.start()
        self._provider = make_provider(
            settings.redirect.provider,
            settings.redirect_options(self.listening[0], self._admin.endpoint),
        )
        self.services = self._make_services()
        self._intake = Intake(self.services, self._counters, sockets, settings.flow_limit())
        redirect = RedirectWatch(self._provider, self._accounts)
        self._closing.append(self._provider.remove)
        await asyncio.to_thread(self._provider.install)
        self._intake.start()
        self._redirect = redirect
        self._spawn(self._store.watch())
        self._spawn(self._sweep())
        self._watching = self._spawn(redirect.run())
        self._accounts.service_event("SERVICE_START", version=__version__)

    def ready_line(self) -> str:
        store = self._store.current
        listen = ", ".join(str(endpoint) for endpoint in self.listening)
        return (
            f"sluicegate {__version__} ready: listening on {listen} ({self._provider.name}), "
            f"admin http://{self._admin.endpoint}, "
            f"generation {store.number} with {store.rules} rules"
        )

    async def drain(self) -> None:
        """No new connections; exchanges in work may finish until the drain limit."""
        self._watching.cancel()  # that it goes now is no loss
        await asyncio.to_thread(self._provider.remove)
        self._intake.close()
        for flow in list(self.services.flows):
            flow.feed(Drain())
        await self._intake.wait(self.services.times.drain_seconds)
        for flow in list(self.services.flows):
            flow.end(How.RESET, FlowOutcome.DRAINED, "the service stopped")

    async def close(self) -> None:
        """Give everything back, whatever had been started, in reverse order."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "_intake"):
            await self._intake.finish()
        if hasattr(self, "_admin"):
            await self._admin.stop()
        for undo in reversed(self._closing):
            undo()
        if self._watch is not None:
            self._watch.close()
        if self._pipes is not None:
            self._pipes.close()
        self._accounts.service_event("SERVICE_STOP", version=__version__)
        if self._sink is not None:
            self._sink.close()

    def status(self) -> dict[str, Any]:
        """What `sluicegate status` shows."""
        generation, last, redirect = self._store.current, self._last_reload, self._redirect
        if redirect is None:
            return {"version": __version__, "state": "starting"}
        return {
            "version": __version__,
            "uptime_seconds": round(time.time() - self._started, 3),
            "state": "draining" if self.stopping.is_set() else "ready",
            "listen": [str(endpoint) for endpoint in self.listening],
            "admin": str(self._admin.endpoint),
            "provider": self._provider.name,
            "redirect": {"ok": redirect.health.ok, "detail": redirect.health.detail},
            "loop": type(self._loop).__module__,
            "flows_open": len(self.services.flows),
            "buffered_bytes": self.services.budget.used,
            "policies": str(self.settings.policies_dir()),
            "generation": generation.number,
            "rules": generation.rules,
            "policy_names": list(generation.policies),
            "last_reload": _describe(last) if last is not None else None,
        }

    async def reload(self) -> dict[str, Any]:
        """The admin endpoint's and SIGHUP's reload."""
        return _describe(await self._store.reload("admin"))

    def _make_services(self) -> Services:
        config = self.settings.stream_config()
        protocol = protocol_stage(config, self._current_policy, time.time, self._callouts.http)
        return Services(
            loop=self._loop,
            provider=self._provider,
            guard=SelfGuard([*self.listening, self._admin.endpoint]),
            policies=self._current_policy,
            registrations=(protocol, *self._callouts.streams),
            connections=self._callouts.connections,
            accounts=self._accounts,
            config=config,
            times=self.settings.flow_times(),
            budget=Budget(config.limits.process_buffer),
            wall=time.time,
            watch=self._watch,
            pipes=self._pipes,
        )

    def _make_admin(self, endpoint: Endpoint) -> AdminServer:
        return AdminServer(
            endpoint,
            metrics=self._counters,
            status=self.status,
            reload=self.reload,
            ready=self._ready,
            token=self.settings.admin_token(),
        )

    def _ready(self) -> bool:
        redirect = self._redirect
        return redirect is not None and redirect.health.ok and not self.stopping.is_set()

    def _current_policy(self) -> SampledPolicy:
        generation = self._store.current
        if self._policy is None or self._policy.number != generation.number:
            self._policy = SampledPolicy(generation, self._counters.observe_decision)
            self._counters.set_rules(generation.rule_ids)
        return self._policy

    def _on_reload(self, result: ReloadResult) -> None:
        """A reload has ended, well or not: say so, and look again at flows that are open."""
        before, self._last_reload = self._last_reload, result
        self._accounts.reloaded(result)
        for problem in result.problems:
            print(f"sluicegate: policy not taken: {problem}", file=sys.stderr, flush=True)
        if result.ok and before is not None and result.changed:
            reauthorise(self.services, self._store.current.on_reload)

    def take_signals(self) -> None:
        """SIGTERM and SIGINT stop, SIGHUP reloads policy and reopens the event file."""
        if sys.platform == "win32":
            return  # no loop signal handlers there; the service host calls stop and reload
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stopping.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self) -> None:
        if self._sink is not None:
            self._sink.reopen()
        self._spawn(self._reload_quietly())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reload_quietly(self) -> None:
        await self._store.reload("SIGHUP")

    async def _sweep(self) -> None:
        """Once a second: idle and stalled flows, and how late the loop is."""
        due = self._loop.time() + _SWEEP_SECONDS
        while True:
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            now = self._loop.time()
            self._counters.observe_loop_lag(max(0.0, now - due))
            self._counters.buffered_bytes = self.services.budget.used
            for flow in list(self.services.flows):
                flow.tick(now)
            due = self._loop.time() + _SWEEP_SECONDS


def _describe(result: ReloadResult) -> dict[str, Any]:
    """A reload as JSON."""
    return {
        "ok": result.ok,
        "generation": result.generation,
        "reason": result.reason,
        "changed": result.changed,
        "rules": result.rules,
        "seconds": round(result.seconds, 6),
        "at": result.wall,
        "problems": [str(problem) for problem in result.problems],
    }
