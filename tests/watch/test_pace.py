"""Which steps are looked at closely, and that looks never take more of a loop's time than their share."""

from chainrule.watch.observed import Kept
from chainrule.watch.pace import FIRST, Pace, due_after


def looked_at(pace, steps):
    return [number for number in range(1, steps + 1) if pace.wanted(number)]


def test_looks_are_due_at_four_steps_and_then_at_powers_of_two():
    pace = Pace()
    pace.limited = False

    assert [1, 2, 3, 4, 8, 16, 32, 64] == looked_at(pace, 100)


def test_a_look_that_costs_nothing_is_never_put_off():
    assert [1, 2, 3, 4, 8, 16, 32, 64] == looked_at(Pace(), 100)


def test_dear_looks_are_put_off_after_the_first_steps():
    pace = Pace()
    with pace.timed():
        end = sum(range(200_000))  # longer than the hundred empty steps

    assert end
    assert [1, 2, 3, 4, 8, FIRST] == looked_at(pace, 100)


def test_a_look_that_was_put_off_is_made_as_soon_as_the_loop_can_spare_it():
    pace = Pace()
    looked_at(pace, 40)
    with pace.timed():
        end = sum(range(20_000))
    number = 64
    while not pace.wanted(number):
        number += 1

    assert end
    assert number > 64
    assert not pace.wanted(number + 1)


def test_the_next_look_is_due_later():
    assert [2, 3, 4, 8, 8, 8, 8, 16] == [due_after(number) for number in range(1, 9)]


def test_what_was_computed_of_a_record_once_is_not_computed_again():
    class Record(Kept):
        asked = 0

        def count(self):
            self.asked += 1
            return self.asked

    record = Record()

    assert [1, 1] == [record.once(Record.count) for _ in range(2)]
