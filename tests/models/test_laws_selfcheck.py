"""Every law can be kept and can be broken: the toy obeys all; each of its faults is found by the law it is against."""

import inspect
import re

import pytest

from tests.models.common import MethodLaws
from tests.models.laws import training
from tests.models.laws.two_processes import two_process_gradients
from tests.models.toy import ToyLaws, ToyWithLocalNegatives, ToyWithoutGatheredGradient

FAULTS = [
    ("law_01_save_and_load", "tensor is not saved"),
    ("law_01_processor", "option is not saved"),
    ("law_02_everything_missing", "buffer is not restored"),
    ("law_02_everything_missing", "parameter is not initialised"),
    ("law_02_some_missing", "another width"),
    ("law_02_some_missing", "overwrites its neighbour"),
    ("law_02_some_missing", "parameter is not initialised"),
    ("law_03_renumbering", "sees the order of the atoms"),
    ("law_04_alone_and_in_a_batch", "counts padding"),
    ("law_05_motion", "sees absolute coordinates"),
    ("law_05_motion", "sees handedness"),
    ("law_06_gradients", "dead parameter"),
    ("law_07_seeded_batches", "keeps a generator"),
    ("law_07_seeded_batches", "draws from the global generator"),
    ("law_07_seeded_batches", "draws for the batch"),
    ("law_07_seeded_batches", "ignores the epoch"),
    ("law_07_workers_and_resuming", "keeps a generator"),
    ("law_08_overfitting", "nothing to learn"),
    ("law_09_model_output", "embedding of float64"),
    ("law_09_model_output", "embedding of another width"),
    ("law_09_model_output", "loss is no scalar"),
    ("law_09_recorded_outputs", "hidden states are detached"),
    ("law_09_recorded_outputs", "attentions are left out"),
    ("law_09_recorded_outputs", "head forgets hidden states"),
    ("law_09_property_output", "predictions without units"),
    ("law_09_property_output", "missing labels count"),
    ("law_10_bad_smiles", "accepts bad SMILES"),
    ("law_10_bad_smiles", "loses places"),
    ("law_10_bad_smiles", "prints"),
    ("law_10_contract", "reads anything"),
    ("law_10_contract", "one size"),
    ("law_10_odd_molecules", "refuses salts"),
    ("law_11_agreement", "numbers disagree"),
    ("law_12_sdpa", "causal"),
    ("law_12_checkpointing", "checkpointing changes numbers"),
    ("law_12_checkpointing", "no checkpointing"),
    ("law_12_checkpointing", "hides its states"),
    ("law_12_compile", "compiled otherwise"),
    ("law_12_bf16", "overflows in bf16"),
    ("law_13_resuming", "state is not saved"),
    ("law_13_resuming", "keeps a generator"),
]


class TestToy(ToyLaws):
    """The toy without a fault obeys (law 14 below, in one torchrun with those that break it)."""

    test_law_14_two_processes = None


def broken(law: str, laws: MethodLaws, request: pytest.FixtureRequest) -> str:
    """The complaint of a law that does not hold."""
    check = getattr(laws, f"test_{law}")
    fixtures = {name: request.getfixturevalue(name) for name in inspect.signature(check).parameters}
    with pytest.raises(AssertionError) as complaint:
        check(**fixtures)
    return str(complaint.value)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("law", "fault"), FAULTS, ids=[f"{law}-{fault}" for law, fault in FAULTS])
def test_fault_is_found(law, fault, request):
    laws = ToyLaws()
    laws.fault = fault
    assert re.match(rf"law {int(law[4:6])}: ", broken(law, laws, request))


def test_frozen_list_must_be_true(request):
    """Law 6: neither a parameter with a gradient nor one that does not exist may be listed as frozen."""
    laws = ToyLaws()
    for pattern, complaint in ((r"gain$", "gradient True, listed as frozen True"), (r"nowhere", "no such parameter")):
        laws.frozen = {pattern: "said to be frozen"}
        assert complaint in broken("law_06_gradients", laws, request)


def test_agreement_cannot_be_left_out(request):
    """Law 11 fails for a method that says nothing, or asks to be excused."""
    laws = ToyLaws()
    laws.agreement = lambda: MethodLaws.agreement(laws)
    assert broken("law_11_agreement", laws, request).startswith("law 11: ")
    laws.does_not_apply = {"law_11_agreement": "no original"}
    with pytest.raises(AssertionError, match="never skipped"):
        laws.test_exceptions_name_laws()


def test_law_14(tmp_path):
    classes = [ToyLaws, ToyWithLocalNegatives, ToyWithoutGatheredGradient]
    names = [f"{laws.__module__}:{laws.__name__}" for laws in classes]
    results = two_process_gradients(names, tmp_path)
    for laws, name in zip(classes, names, strict=True):
        if laws is ToyLaws:
            laws().require_joined(results[name])
        else:
            with pytest.raises(AssertionError, match=r"^law 14: "):
                laws().require_joined(results[name])


def test_every_law_is_broken_by_a_fault():
    """No law without a fault that it finds."""
    laws = {name.removeprefix("test_") for name in vars_of(MethodLaws) if name.startswith("test_law_")}
    covered = {law for law, _ in FAULTS} | {"law_14_two_processes", "law_01_pre_trained_into_others"}
    assert laws == covered
    assert {int(law[4:6]) for law in laws} == set(range(1, 15))
    assert training.TrainingLaws in MethodLaws.__mro__


def vars_of(cls: type) -> set[str]:
    return {name for base in cls.__mro__ for name in vars(base)}
