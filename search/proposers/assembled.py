"""The proposers of a study, which depend on its sampler and on the block table."""

from __future__ import annotations

from collections.abc import Sequence

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.planning.predictor import Predictor
from paretoformer.search.proposers.proposer import Proposer
from paretoformer.search.proposers.solved import REACH, solved_proposers
from paretoformer.search.proposers.standard import standard_proposers
from paretoformer.search.proposers.surrogate import Surrogate
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.study.samplers import predicts, uses_surrogate
from paretoformer.spaces.space import Space


def study_proposers(
    space: Space,
    predictor: Predictor | None,
    sampler: str,
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement],
    *,
    seed: int,
    slots: int,
    reach: float = REACH,
) -> list[Proposer]:
    """Solved candidates, then the surrogate or the named sampler. Without a block table: the
    standard proposers.

    predictor: None without a block table. slots: candidates that the workers measure at once.
    reach: multiple of the allowed loss of quality that is of use.

    Raises:
        StudyError: the sampler needs a block table, and there is none.
    """
    learns = uses_surrogate(sampler, objectives, has_table=predictor is not None)
    if predictor is None or not predicts(objectives):
        return standard_proposers(space, objectives, requirements)
    found = solved_proposers(predictor, objectives, requirements, at_once=slots + 1)
    if learns:
        surrogate = Surrogate(
            predictor, objectives, requirements, seed, 2 * slots, found[-1], reach
        )
        found.append(surrogate)
    return found
