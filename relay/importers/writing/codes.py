"""Redemption codes: open ones can be redeemed here, others say why they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from portal.lib import money
from relay.billing import redemption
from relay.importers.description import CodeState, Level, SourceCode
from relay.importers.mapping import Known, NewRow
from relay.importers.run import Run, batched
from relay.models import RedemptionCode


def carry(run: Run) -> None:
    met: set[str] = set()
    for batch in batched(run.source.codes()):
        new: list[SourceCode] = []
        digests = [redemption.digest_of_code(code.code) for code in batch]
        taken = set(RedemptionCode.objects.filter(digest__in=digests).values_list("digest", flat=True))
        for code, digest in zip(batch, digests, strict=True):
            run.report.remarks("code", code, code.remarks)
            known = run.rows.find("code", code.id)
            why = code.left_out or _unusable(code)
            if not why and known is None and digest in taken:
                why = "The same code is here already, or came before it."
            met.add(code.id)
            if code.left_out and known is not None:
                _follow(run, replace(code, state=CodeState.DISABLED), known)
            elif why:
                run.report.leave_out("code", code, why)
            elif known is None:
                taken.add(digest)
                new.append(code)
            else:
                _follow(run, code, known)
        _create(run, new)
    if met:  # otherwise the source has no codes at all
        for source_id, known in run.rows.of("code").items():
            if source_id not in met:  # deleted there, perhaps after it was redeemed
                _follow(run, SourceCode(id=source_id, name="", state=CodeState.DISABLED), known)


def _unusable(code: SourceCode) -> str:
    if not any(character.isalnum() for character in code.code):
        return "It has no letters or digits."
    return "" if 0 < code.amount <= money.LARGEST else "It is worth nothing."


def _create(run: Run, codes: Sequence[SourceCode]) -> None:
    run.report.counts["code"].new += len(codes)
    groups: dict[Any, list[SourceCode]] = {}
    for code in codes:
        groups.setdefault((code.name, code.amount, code.expires_at), []).append(code)
        if code.state == CodeState.REDEEMED and run.rows.here("user", code.redeemed_by) is None:
            text = "It was redeemed by somebody who is not known here: it is a disabled code."
            run.report.tell("code", code, text, Level.NOTE)
    if not run.applies:
        return
    for (name, amount, expires_at), some in groups.items():
        with run.batch():
            rows = [
                redemption.ForeignCode(
                    code.code,
                    code.state == CodeState.OPEN,
                    (run.rows.here("user", code.redeemed_by) or None) if code.state == CodeState.REDEEMED else None,
                    code.redeemed_at,
                )
                for code in some
            ]
            batch_name = (" ".join(name.split()) or "Imported")[:80]
            made = redemption.add_codes(batch_name, amount, rows, expires_at=expires_at)
            run.rows.add(
                "code",
                [
                    NewRow(code.id, row.pk, seen={"state": code.state.value})
                    for code, row in zip(some, made, strict=True)
                ],
            )
            run.audit("import.create", [(made[0].batch, some[0].id)])


def _follow(run: Run, code: SourceCode, known: Known) -> None:
    """What was redeemed or disabled there since cannot be redeemed here any more."""
    now = {"state": code.state.value}
    if known.seen == now:
        run.report.counts["code"].unchanged += 1
        return
    if known.seen["state"] != CodeState.OPEN and code.state == CodeState.DISABLED:
        run.report.counts["code"].unchanged += 1  # neither can be redeemed
        return
    row = RedemptionCode.objects.filter(pk=known.object_id).first()
    if row is not None and row.redeemed_at and code.state == CodeState.REDEEMED:
        run.report.counts["code"].unchanged += 1
        run.report.tell("code", code, "It was redeemed there and here: both balances have its amount.")
        return
    run.report.counts["code"].changed += 1
    if run.applies and row is not None:
        with run.batch():
            # Never back to open: it may have been redeemed there meanwhile.
            if code.state != CodeState.OPEN and row.redeemed_at is None:
                redemption.disable_code(row, actor=None)
            run.rows.update(known, now)
