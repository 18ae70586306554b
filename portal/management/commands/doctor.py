from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from portal.doctor.run import Wish, run
from portal.doctor.runs import make_run
from relay.models import Diagnosis


class Command(BaseCommand):
    help = "Check the installation, and print the results as JSON. `airelays doctor` prints them for people."
    requires_system_checks = ()  # they are among what is told

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int, nargs="?", help="a run that the admin's page has begun, and shows")
        parser.add_argument("--skip-response", action="store_true", help="make no request, which would cost something")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["run"] is None:
            report = run(settings.CONFIG, Wish(not options["skip_response"]))
            self.stdout.write(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
            if not report.ok:
                sys.exit(1)
            return
        found = Diagnosis.objects.select_related("actor").filter(pk=options["run"], finished_at=None).first()
        if found is None:
            raise CommandError(f"No run {options['run']} waits to be made.")
        make_run(found)
