"""Comparisons that Django hands to the database as they are, and that fail on numbers which no column holds."""

from __future__ import annotations

from typing import Any

from django.db.models import IntegerField
from django.db.models.lookups import In


@IntegerField.register_lookup
class IntegerIn(In):
    """`id IN (…)` without numbers that are out of the column's range, as Django itself does for `id = …`.

    What people choose in a form comes as such a list; SQLite raises OverflowError on larger ones, others DataError.
    """

    def process_rhs(self, compiler: Any, connection: Any) -> Any:
        if self.rhs_is_direct_value():
            least, most = connection.ops.integer_field_range(self.lhs.output_field.get_internal_type())
            self.rhs = [
                number
                for number in self.rhs
                if not isinstance(number, int)
                or ((least is None or number >= least) and (most is None or number <= most))
            ]
        return super().process_rhs(compiler, connection)
