"""Solved candidates, with a formula in place of the machine: few trials find the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from paretoformer.evaluators.formula import FormulaEvaluator, formula
from paretoformer.evaluators.metrics.counts import Parameters
from paretoformer.evaluators.outcome import Outcome
from paretoformer.search.dispatch.dispatcher import InlineDispatcher
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.loop import Search, stored_records
from paretoformer.search.planning.knapsack import BlockOptions, KnapsackProblem
from paretoformer.search.planning.predictor import Predictor
from paretoformer.search.proposers import Unseen, solved_proposers, standard_proposers
from paretoformer.search.proposers.bisection import by_bisection
from paretoformer.search.proposers.gaussian_process import GaussianProcess
from paretoformer.search.proposers.solved import REACH, least_of_use
from paretoformer.search.proposers.surrogate import Surrogate
from paretoformer.search.records.dominance import hypervolume
from paretoformer.search.records.errors import StudyError
from paretoformer.search.records.facts import LATENCY
from paretoformer.search.records.record import TrialRecord, row, schema
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.optuna_study import study_in
from paretoformer.search.study.samplers import check_sampler, uses_surrogate
from paretoformer.spaces import AttentionChoice, Candidate
from paretoformer.spaces.axes.attention_options import AttentionBlock
from tests.test_loop import MEMORY, NAMES, OBJECTIVES, REQUIREMENT, SCORES, WINDOW, small_space

LAYERS, HEADS = 3, 4
WRONG = 1.7
"""By how much the table is mistaken in one layer, and the costs of mechanisms."""


def predictor() -> Predictor:
    """Of the formula, but for errors as a real table has them."""
    counts = np.arange(HEADS + 1)
    cut = np.tile(0.5 ** counts.astype(float) - 0.5**HEADS, (LAYERS, 1)) / LAYERS
    damage = np.concatenate((cut, cut + 0.01), axis=1)
    damage[1] *= WRONG
    costs = np.concatenate((counts, np.maximum(counts - 0.5 * WRONG, 0)))
    choices = (AttentionChoice("full"), WINDOW)
    block = AttentionBlock(choices, SCORES)
    dense = Candidate.dense(LAYERS, HEADS)
    never = np.full(LAYERS, np.inf)
    problem = KnapsackProblem(
        dense, (BlockOptions(block, damage, costs.astype(float)),), 0.0, never
    )
    found = [each.candidate for each in problem.solve().along(6)]
    space = replace(small_space(), forecasts=tuple(found))
    return Predictor(space, problem)


def search(
    folder: Path, here: Predictor, *, by: str = "surrogate", at_once: int = 2, **evaluator: object
) -> Search:
    study = study_in(MEMORY.setdefault(folder, InMemoryStorage()), "test", OBJECTIVES, "nsga2", 0)
    wanted = OBJECTIVES, [REQUIREMENT]
    proposers = (
        standard_proposers(here.space, *wanted)
        if by == "standard"
        else solved_proposers(here, *wanted, at_once=at_once)
    )
    pipeline = Pipeline(InlineDispatcher(FormulaEvaluator(**evaluator)), "search")  # type: ignore[arg-type]
    spare = Unseen(here.space, 0)
    if by == "surrogate":
        proposers.append(surrogate(here))
    return Search(study, here.space, proposers, spare, pipeline, NAMES, predict=here.of)


def share(records: Sequence[TrialRecord], here: Predictor) -> float:
    """Of the hypervolume of everything that the space has, as far down as is of use."""
    every = (Candidate(*each) for each in product(here))
    whole = np.array([formula(each) for each in every])
    dense = formula(here.space.dense)
    reference = np.array([dense[0] - 0.01 * REACH, dense[1]])
    found = np.array([record.values(NAMES) for record in records if record.ok])
    directions = [metric.direction for metric in OBJECTIVES]
    return hypervolume(found, directions, reference) / hypervolume(whole, directions, reference)


def product(here: Predictor) -> list[tuple[object, object]]:
    domains = here.space.domains
    return [(a, b) for a in domains["heads"].values() for b in domains["attention"].values()]


def test_thirty_trials_find_nearly_all_of_the_front(tmp_path: Path) -> None:
    here = predictor()
    found = search(tmp_path / "a", here)
    records = found.run(30)
    assert len({record.candidate.id for record in records}) == 30
    proposed = [t for t in found.study.get_trials() if "fixed_params" in t.system_attrs]
    assert len(proposed) > 10 + len(here.space.forecasts)
    solved = share(records, here)
    before = share(search(tmp_path / "b", here, by="standard").run(30), here)
    assert solved > 0.99
    assert solved > before - 1e-9


def test_forecasts_are_measured_where_the_requirement_stops_holding_first(tmp_path: Path) -> None:
    here = predictor()
    path = list(here.space.forecasts)
    records = search(tmp_path, here, by="forecasts", at_once=1).run(len(path) + 1)
    dense = records[0].measurements
    holds: list[bool | None] = [None] * len(path)
    for record in (each for each in records[1:] if each.candidate in path):
        place = path.index(record.candidate)
        assert place == by_bisection(holds)[0]
        holds[place] = REQUIREMENT.may_hold(record.measurements, dense)
    assert None not in holds
    assert len(set(holds)) == 2


def test_process_interpolates_and_is_unsure_elsewhere() -> None:
    rng = np.random.default_rng(0)
    rows = rng.uniform(-2, 2, (40, 2))
    values = np.sin(rows[:, 0]) + 0.02 * rng.normal(size=40)
    process = GaussianProcess.fitted(rows, values)
    mean, error = process.predict(np.array([[0.5, 0.0], [30.0, 30.0]]))
    assert mean[0] == pytest.approx(np.sin(0.5), abs=0.1)
    assert error[0] < 0.3 * error[1]


def test_no_candidate_is_proposed_twice_and_a_failed_one_is_no_end(tmp_path: Path) -> None:
    here = predictor()
    first = here.space.forecasts[-1]
    records = search(tmp_path, here, failing={first.id: Outcome.OUT_OF_MEMORY}).run(25)
    assert len({record.candidate.id for record in records}) == len(records) == 25
    assert sum(not record.ok for record in records) == 1


def test_interrupted_search_goes_on(tmp_path: Path) -> None:
    here = predictor()
    RunFolder(tmp_path).check_study(*({"search": {"sampler": each}} for each in ("nsga2", "auto")))
    search(tmp_path, here).run(14)
    records = search(tmp_path, here).run(28)
    assert len(records) == len({record.candidate.id for record in records}) == 28


def test_surrogate_draws_other_neighbours_after_each_result(tmp_path: Path) -> None:
    """So a restarted one does not draw again what it drew before it was cut off."""
    here = predictor()
    found = search(tmp_path, here)
    found.run(14)
    pools = []
    for known in (13, 14):
        records = dict(list(found.known.items())[:known])
        pools.append(set(surrogate(here)._pool(records, [])))
    assert pools[0] != pools[1]


def surrogate(here: Predictor) -> Surrogate:
    return Surrogate(here, OBJECTIVES, [REQUIREMENT], seed=0, at_once=2)


def test_surrogate_is_used_where_it_is_named_or_has_something_to_learn_from() -> None:
    quality = OBJECTIVES[0]
    assert uses_surrogate("auto", OBJECTIVES, has_table=True)
    assert uses_surrogate("surrogate", OBJECTIVES, has_table=True)
    assert not uses_surrogate("nsga2", OBJECTIVES, has_table=True)
    assert not uses_surrogate("auto", OBJECTIVES, has_table=False)
    assert not uses_surrogate("auto", [quality, Parameters()], has_table=True)
    assert uses_surrogate("auto", [*OBJECTIVES, Parameters()], has_table=True)
    with pytest.raises(StudyError, match="needs a table of blocks"):
        uses_surrogate("surrogate", OBJECTIVES, has_table=False)
    check_sampler("auto", [quality, Parameters()])
    check_sampler("surrogate", [*OBJECTIVES, Parameters()])
    with pytest.raises(ValueError, match="have both among the objectives, or write 'auto'"):
        check_sampler("surrogate", [quality, Parameters()])


def test_predictions_stand_beside_what_came_out(tmp_path: Path) -> None:
    here = predictor()
    found = search(tmp_path, here)
    records = found.run(30)
    again = stored_records(found.study)
    assert [each.predicted for each in again] == [each.predicted for each in records]
    late = [record for record in records[15:] if record.predicted]
    assert late
    errors = [abs(r.predicted[LATENCY] / r.measurements[LATENCY].value - 1) for r in late]
    assert np.median(errors) < 0.1
    table = schema(NAMES, [LATENCY], [LATENCY])
    cells = row(late[0], NAMES, [LATENCY], [LATENCY])
    assert cells[f"predicted_{LATENCY}"] == pytest.approx(late[0].predicted[LATENCY])
    assert set(cells) == set(table.names)


@pytest.mark.parametrize("text", ["accuracy>=dense", "accuracy>=0.999", "latency_ms<=1"])
def test_requirement_that_allows_no_loss_rules_nothing_out(text: str) -> None:
    assert least_of_use([Requirement.parse(text)], OBJECTIVES[0], 0.9) is None
    allowed = [Requirement.parse("accuracy>=dense-0.01")]
    assert least_of_use(allowed, OBJECTIVES[0], 0.9) == pytest.approx(0.9 - 0.01 * REACH)


def test_no_round_before_all_that_was_forecast_is_measured(tmp_path: Path) -> None:
    here = predictor()
    records = search(tmp_path, here).run(30)
    planned = {each.id for each in here.space.forecasts}
    order = [record.candidate.id for record in records]
    last = max(order.index(each) for each in planned)
    assert set(order[1 : last + 1]) == planned
