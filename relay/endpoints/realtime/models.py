"""The models that one realtime session uses: its own, and those that write the user's speech down.

Each is permitted as the model of any request is, and sent by the name that the upstream has for it.
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import replace
from typing import Final

from portal.lib.json import Json, decode_object, object_of, text_of
from relay.endpoints.files.file_ids import check_no_ids
from relay.endpoints.overrides import rules_for
from relay.errors import Forbidden, InvalidRequest, RelayError
from relay.gateway.access.authorization import find_model, permitted_model
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Candidate
from relay.gateway.snapshot.views import ModelView, Route
from relay.protocols.fields import BadRequest
from relay.protocols.naming.references import references_in
from relay.protocols.realtime.events import named_models
from relay.providers import parameters
from relay.providers.overrides.apply import to_body

_MOST: Final = 16  # models that one session may name
_MOST_UNDONE: Final = 3  # times that a transcriber which nobody here knows is turned off before the session ends


class SessionModels:
    """The models of one session, on the channel that serves it."""

    def __init__(self, caller: Caller, session: str, candidate: Candidate, fixed: bool = False) -> None:
        """`session`: the session's own, by its public name. `fixed`: it transcribes, and by nothing else."""
        self._caller, self.session, self._candidate, self._fixed = caller, session, candidate, fixed
        self.transcribes = False  # the session only transcribes
        self._told = {candidate.route.upstream_name}  # the session's own, as the upstream has called it
        self._in_force = ""  # the transcriber, as the upstream told it last
        self._undone = 0
        self._public: dict[str, str] = {}  # public names of transcribers, by the upstream's
        self._named = ""  # the newest of them, by the upstream's name
        route = candidate.route
        self._rules = rules_for(route.channel, "realtime", session, route.upstream_name)

    def translate(self, event: Json) -> bool:
        """Put the upstream's names for models into a client's event, and leave out what would name others otherwise.

        Returns whether it was changed. Raises BadRequest for a model that the caller may not use, or a stored file.
        """
        check_no_ids(event, "")
        changed = self._drop(event)
        changed = self._override(event) or changed
        for named in named_models(event):
            model = named.holder.get("model")
            if named.transcribes:
                if model is None and (self._named or self.transcribes):
                    sent = self._named or self._candidate.route.upstream_name
                else:
                    sent = self._named = self._transcriber(model, named.param)
            elif not self._is_own(model):
                message = f"This session is with “{self.session[:100]}”. Open another one for another model."
                raise BadRequest(message, named.param, "model_not_allowed")
            else:
                sent = self._candidate.route.upstream_name
            changed = changed or sent != model
            named.holder["model"] = sent
        return changed

    def _is_own(self, name: object) -> bool:
        """Whether a name is one of the session's own model, or what the upstream calls it: clients send that back."""
        if name == self.session or name in self._told:
            return True
        model = find_model(snapshot_cache.snapshot, name) if isinstance(name, str) else None
        return model is not None and model.name == self.session

    def _drop(self, event: Json) -> bool:
        """Leave out the parameters that may name other models, or what their provider does not take."""
        policy = self._candidate.route.channel.policy("realtime")
        dropped: list[str] = []
        for name in ("session", "response"):
            holder = event.get(name)
            if isinstance(holder, dict):
                dropped += parameters.apply_to(policy, holder)
        return bool(dropped)

    def opening(self, session: Json, transcribes: bool) -> Json:
        """The session that the connection opens with: the client's, and what the channel's overrides set in it.

        Empty: there is nothing to tell the upstream. `transcribes`: the session has few of the members of others.
        """
        opened: Json = deepcopy(session)
        if not transcribes:
            to_body([rule for rule in self._rules if rule.action in {"set", "default"}], opened)
        return opened

    def _override(self, event: Json) -> bool:
        """Apply the channel's overrides to what an event says of the session or of a response.

        Both are said in parts: what is set was told when the connection was opened, so that it is put in the place of
        what the client says only.
        """
        changed = False
        for name in ("session", "response") if self._rules else ():
            holder = event.get(name)
            if not isinstance(holder, dict):
                continue
            before = dict(holder)
            for rule in self._rules:
                if rule.action in {"remove", "rename"} or (rule.action == "set" and rule.path[0] in holder):
                    to_body([rule], holder)
            changed = changed or holder != before
        return changed

    def _transcriber(self, name: object, param: str) -> str:
        if not isinstance(name, str) or not name:
            message = "Name the model that writes the speech down, such as one from GET /v1/models."
            raise BadRequest(message, param, "missing_required_parameter")
        try:
            model = permitted_model(self._caller, snapshot_cache.snapshot, name, time.time())
        except RelayError as refused:
            if name in self._public or name == self._in_force:
                return name  # sent back as the upstream told it
            raise BadRequest(refused.message, param, refused.public_code or "model_not_allowed") from None
        if self._fixed and model.name != self.session:
            message = f"This session is with “{self.session[:100]}”. Open another one for another model."
            raise BadRequest(message, param, "model_not_allowed")
        route = self._route(model)
        sent = route.upstream_name if route is not None else model.name
        if sent not in self._public and len(self._public) >= _MOST:
            raise BadRequest(f"A session may name {_MOST} models. Open another one.", param, "invalid_value")
        self._public[sent] = model.name
        return sent

    def told(self, text: str) -> None:
        """Take over how an event of the upstream about the session names its models."""
        for named in named_models({"session": object_of(decode_object(text) or {}, "session")}):
            name = text_of(named.holder, "model")
            if named.transcribes:
                self._in_force = name
            elif name and len(self._told) < _MOST:
                self._told.add(name)

    def check_seen(self, session: Json) -> Json | None:
        """Check the transcribers in a session as the upstream tells it, which the client may have named to it directly.

        Returns an event that turns one off that nobody here knows, such as a default of the upstream's own. Raises
        Forbidden when the caller may not use it, or it comes back; InvalidRequest when the session has objects of the
        account at the upstream.
        """
        for reference in references_in(session, "session"):
            raise InvalidRequest(f"The session was ended. {reference.message}", param=reference.param[:200])
        for named in named_models({"session": session}):
            name = named.holder.get("model")
            if not named.transcribes or not isinstance(name, str) or not name or name in self._public:
                continue
            found = self._seen(name)
            if found is not None and len(self._public) < _MOST:
                if not self._fixed or found.name == self.session:
                    self._public[name] = found.name
                    continue
            elif found is None and not self._is_known(name) and self._undone < _MOST_UNDONE:
                self._undone += 1
                return self._undo()
            raise Forbidden(
                "The session was ended: its client had speech written down by a model that its token may not use.",
                param=named.param,
            )
        return None

    def _undo(self) -> Json:
        """An event by which the session transcribes as was asked for here, or not at all."""
        name = self._named or (self._candidate.route.upstream_name if self.transcribes else "")
        transcription: Json | None = {"model": name} if name else None
        session: Json = {"type": "transcription" if self.transcribes else "realtime"}
        return {"type": "session.update", "session": {**session, "audio": {"input": {"transcription": transcription}}}}

    def _is_known(self, name: str) -> bool:
        """Whether the portal, or the session's channel, has a model of this name, whoever may use it."""
        snapshot, channel = snapshot_cache.snapshot, self._candidate.route.channel.id
        if name in snapshot.disabled or find_model(snapshot, name) is not None:
            return True
        routes = (route for model in snapshot.models.values() for route in model.routes)
        return any(route.upstream_name == name and route.channel.id == channel for route in routes)

    def _seen(self, name: str) -> ModelView | None:
        """A model that the caller may use and that the session's channel calls `name`."""
        for model in snapshot_cache.snapshot.models.values():
            route = self._route(model)
            if route is None or name not in {route.upstream_name, model.name}:
                continue
            if self._caller.may_use(model, time.time()):
                return model
        return None

    def public(self, name: str) -> str:
        """The public name of what the upstream calls `name`."""
        own = self.session if name == self._candidate.route.upstream_name else name
        return self._public.get(name, own)

    def find(self, name: str) -> ModelView | None:
        """The model that the upstream calls `name`; None where the portal has none."""
        return find_model(snapshot_cache.snapshot, self.public(name)) if name else None

    def route_of(self, name: str) -> Route | None:
        """The route of a transcriber on the session's channel, None: it has none there, so no price of its own."""
        model = self.find(name)
        return self._route(model) if model is not None else None

    def candidate_of(self, name: str) -> Candidate:
        """What serves a transcriber, for its record: the session's channel and key, at the transcriber's prices."""
        own = self._candidate
        route = self.route_of(name)
        return Candidate(route or replace(own.route, upstream_name=name, price=None, cost=None), own.key)

    def _route(self, model: ModelView) -> Route | None:
        channel = self._candidate.route.channel.id
        return next((route for route in self._caller.routes(model) if route.channel.id == channel), None)
