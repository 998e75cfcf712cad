"""The groups of the Advanced tab."""

from webui.controls import CONTROLS
from webui.tabs.advanced import GROUPS


def test_a_setting_is_in_one_group_and_has_a_control():
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))
    assert set(names) <= set(CONTROLS)
