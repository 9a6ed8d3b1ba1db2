"""Draws the services and their dependencies as a mermaid flowchart."""

from __future__ import annotations

from polaris.di._registration import ProviderKind, ServiceLifetime, ServiceRegistration
from polaris.di._wiring import Wiring, missing_name

_SHAPES = {
    ServiceLifetime.SINGLETON: ('["', '"]'),
    ServiceLifetime.SCOPED: ('("', '")'),
    ServiceLifetime.TRANSIENT: ('(["', '"])'),
}


def draw_mermaid(wiring: Wiring) -> str:
    """The flowchart: boxes are singletons, rounded ones scoped, pills transient; what is missing is dashed."""
    registrations = wiring.registrations()
    names = {one: f"s{number}" for number, one in enumerate(registrations, 1)}
    missing: dict[str, str] = {}
    lines = ["flowchart LR"]
    lines += [f"    {names[one]}{_box(one)}" for one in registrations]
    for one in registrations:
        for filling in wiring.fillings(one):
            lines += [f"    {names[one]} --> {names[need]}" for need in filling.registrations]
            if filling.is_missing:
                node = missing.setdefault(missing_name(filling.dependency), f"m{len(missing) + 1}")
                lines.append(f"    {names[one]} -.-> {node}")
    lines += [f'    {node}["{_escape(name)} is missing"]:::missing' for name, node in missing.items()]
    if missing:
        lines.append("    classDef missing stroke:#c00,stroke-dasharray:4")
    return "\n".join(lines) + "\n"


def _box(registration: ServiceRegistration) -> str:
    opening, closing = _SHAPES[registration.lifetime]
    text = _escape(registration.name)
    provider = registration.provider
    if registration.kind is not ProviderKind.INSTANCE and provider is not registration.interface:
        made_by = getattr(provider, "__qualname__", type(provider).__name__).rpartition(".")[2]
        text += f"<br/>{_escape(made_by)}"
    return f"{opening}{text}{closing}"


def _escape(text: str) -> str:
    """Text as mermaid shows it inside quotes: entities for what would end the label or read as markup."""
    codes = {"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;"}
    return "".join(codes.get(character, character) for character in text)
