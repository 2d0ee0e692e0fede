"""The programs of the plan that is carried out, as children, and what they are to each other."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_fp8_ops.plan.launch import LaunchPlan
from qwen_fp8_ops.service.child import Child, Life


class Crew:
    """``plan`` is the one in force."""

    def __init__(self, plan: LaunchPlan) -> None:
        self.plan = plan
        self.children = [Child(program) for program in plan.programs]

    @property
    def engines(self) -> list[Child]:
        return [child for child in self.children if child.program.is_engine]

    @property
    def weight_cache(self) -> Child | None:
        return next((child for child in self.children if child.program.is_weight_cache), None)

    @property
    def in_order_of_end(self) -> Iterator[Child]:
        """Engines first: what they use must outlive them."""
        return reversed(self.children)

    def needed_by(self, child: Child) -> list[Child]:
        return [other for other in self.children if other.program.name in child.program.needs]

    def may_start(self, child: Child) -> bool:
        """Is everything there that it needs, or will never be? Weights that an engine still maps must not be taken a second time."""
        if child.program.is_weight_cache:
            return not any(engine.running for engine in self.engines)
        return all(other.life in (Life.READY, Life.STOPPED) for other in self.needed_by(child))

    def is_alone(self, child: Child) -> bool:
        """Has something that it needs been given up?"""
        return any(other.life is Life.STOPPED for other in self.needed_by(child))

    def can_do_without(self, child: Child) -> bool:
        """Can a service that was ready go on without it? One engine is enough to serve."""
        return not child.program.is_engine or any(other.life is not Life.STOPPED for other in self.engines if other is not child)

    def leaving(self, plan: LaunchPlan, *, keep_weights: bool) -> list[Child]:
        """Those that a change to this plan ends, in the order in which they end."""
        return [child for child in self.in_order_of_end if not _stays(child, plan, keep_weights)]

    def take_up(self, plan: LaunchPlan, *, keep_weights: bool) -> None:
        """Go over to another plan. Children that stay run on; the others were ended before."""
        kept = {child.program.name: child for child in self.children if _stays(child, plan, keep_weights)}
        programs = {program.name: program for program in plan.programs}
        for name, child in kept.items():
            child.program = programs[name]
        self.children = [kept.get(program.name) or Child(program) for program in plan.programs]
        self.plan = plan


def _stays(child: Child, plan: LaunchPlan, keep_weights: bool) -> bool:
    """Engines never do; of the others those that the plan leaves as they are. What was given up gets another chance."""
    program = child.program
    kept = not program.is_engine and child.life is not Life.STOPPED and (keep_weights or not program.is_weight_cache)
    return kept and any(other.runs_as(program) for other in plan.programs)
