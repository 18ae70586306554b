"""Date formats in English, with the month as a word, so that day and month cannot be confused."""

DATE_FORMAT = "j M Y"
DATETIME_FORMAT = "j M Y H:i"
SHORT_DATE_FORMAT = "j M"
SHORT_DATETIME_FORMAT = "j M H:i:s"
MOMENT_FORMAT = "j M Y H:i:s"  # to the second
TIME_FORMAT = "H:i"
YEAR_MONTH_FORMAT = "F Y"
