from __future__ import annotations

import pytest

from expunge.report import naming


@pytest.mark.parametrize(
    ("name", "group", "title"),
    [
        ("forget_Q_A_Prob", "Forgotten?", "Answer probability"),
        ("forget_Q_A_PERT_Prob", "Forgotten?", "Wrong-answer probability"),
        ("forget_quality_ks", "Forgotten?", "Forget quality (KS)"),
        ("retain_Truth_Ratio", "Kept?", "Retain: truth ratio"),
        ("wf_Q_A_Prob_normalised", "Kept?", "World facts: probability among options"),
        ("near_neighbours_Q_A_ROUGE", "Kept?", "Near neighbours: ROUGE-L"),
        ("mia_something_new", "Leaks?", "mia_something_new"),
        ("retain_fluency", "Kept?", "Retain: fluency"),
        ("retain_zest", "Kept?", "retain_zest"),
        ("my_metric", "Other", "my_metric"),
    ],
)
def test_names_groups_and_titles(name: str, group: str, title: str) -> None:
    found = naming.metric(name)
    assert (found.group, found.title) == (group, title)


def test_order_is_by_question_then_set_then_measure() -> None:
    names = [
        "zeta",
        "mia_zlib",
        "wf_Q_A_Prob",
        "retain_Q_A_ROUGE",
        "retain_Q_A_Prob",
        "model_utility",
        "forget_Q_A_Prob",
    ]
    assert sorted(names, key=naming.order) == [
        "forget_Q_A_Prob",
        "model_utility",
        "retain_Q_A_Prob",
        "retain_Q_A_ROUGE",
        "wf_Q_A_Prob",
        "mia_zlib",
        "zeta",
    ]


def test_every_headline_metric_is_known_by_name() -> None:
    for _, _, wanted in naming.HEADLINES:
        for name in wanted:
            assert naming.metric(name).what
