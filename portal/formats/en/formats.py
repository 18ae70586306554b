"""Dates of the pages in English: no order of day and month that has to be guessed."""

DATE_FORMAT = "j M Y"
DATETIME_FORMAT = "j M Y H:i"
SHORT_DATE_FORMAT = "j M"
SHORT_DATETIME_FORMAT = "j M H:i:s"
MOMENT_FORMAT = "j M Y H:i:s"  # to the second
TIME_FORMAT = "H:i"
YEAR_MONTH_FORMAT = "F Y"
