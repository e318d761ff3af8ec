"""Signing in with the company's own accounts: OpenID Connect, the authorization code with PKCE."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from serving.http.keys import Caller, Role
from serving.scope import Scope
from workspace.settings import Oidc

SECRET_VARIABLE = "PERENNIAL_OIDC_SECRET"
_ORDER: tuple[Role, ...] = ("admin", "marketing", "crm")
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_PATIENCE = 10  # seconds that the provider may take
_CLOCKS_APART = 60  # seconds


class NotSignedIn(Exception):
    """The provider, or what it says of somebody, lets nobody in; the sentence is for whoever tried."""


@dataclass(frozen=True)
class Begun:
    """A sign-in that went to the provider: where to, and what its answer is held against."""

    address: str
    state: str
    nonce: str
    verifier: str


class Company:
    """The provider that the setting `service.oidc` names."""

    def __init__(self, oidc: Oidc, back: str) -> None:
        self.oidc, self.back = oidc, back

    def begin(self) -> Begun:
        """
        Raises:
            NotSignedIn: the provider does not answer.
        """
        verifier, nonce = generate_token(48), secrets.token_urlsafe(24)
        address, state = self._session().create_authorization_url(
            self._metadata()["authorization_endpoint"], nonce=nonce, code_verifier=verifier
        )
        return Begun(address, state, nonce, verifier)

    def caller(self, begun: Begun, answer: Mapping[str, str]) -> Caller:
        """Who came back: named `oidc:` and their subject, with the highest role that their groups give.

        Who is in groups with scopes sees those parts of the shop, and whatever else they are in nothing more.

        Raises:
            NotSignedIn: they were refused, what came is not of this sign-in, or none of their groups has a role.
        """
        if answer.get("state") != begun.state or "code" not in answer:
            raise NotSignedIn(
                answer.get("error_description") or answer.get("error") or "this sign-in is not one of ours"
            )
        claims = self._claims(begun, answer["code"])
        groups = claims.get(self.oidc.claim) or []
        groups = [groups] if isinstance(groups, str) else groups
        roles = {self.oidc.roles[group] for group in groups if group in self.oidc.roles}
        role = next((role for role in _ORDER if role in roles), None)
        if role is None:
            raise NotSignedIn(
                "none of your groups may use this desk; whoever runs it can add one to `service.oidc.roles`"
            )
        may_see = any(group in self.oidc.contacts for group in groups)
        limits = [Scope.of(rules) for group, rules in self.oidc.scopes.items() if group in groups]
        scope = Scope(tuple(part for limit in limits for part in limit.parts))
        return Caller(f"oidc:{claims['sub']}", role, may_see, scope)

    def _claims(self, begun: Begun, code: str) -> dict[str, Any]:
        try:
            token = self._session().fetch_token(
                self._metadata()["token_endpoint"], code=code, code_verifier=begun.verifier, timeout=_PATIENCE
            )
            keys = KeySet.import_key_set(_asked(self._metadata()["jwks_uri"]))
            claims = jwt.decode(token["id_token"], keys, algorithms=_ALGORITHMS).claims
            expected = jwt.JWTClaimsRegistry(
                leeway=_CLOCKS_APART, iss={"essential": True, "value": self._metadata()["issuer"]},
                aud={"essential": True, "value": self.oidc.client_id}, exp={"essential": True},
                nonce={"essential": True, "value": begun.nonce}, sub={"essential": True},
            )  # fmt: skip
            expected.validate(claims)
        except (AuthlibBaseError, JoseError, OSError, KeyError, ValueError) as problem:
            raise NotSignedIn(f"the provider's answer cannot be trusted: {type(problem).__name__}") from problem
        return dict(claims)

    def _metadata(self) -> Any:
        try:
            told = _asked(f"{self.oidc.issuer.rstrip('/')}/.well-known/openid-configuration")
        except (OSError, ValueError) as problem:
            raise NotSignedIn("the company's sign-in does not answer; try again, or use a key") from problem
        if told.get("issuer", "").rstrip("/") != self.oidc.issuer.rstrip("/"):
            raise NotSignedIn("the provider calls itself otherwise than `service.oidc.issuer`")
        return told

    def _session(self) -> OAuth2Session:
        secret = os.environ.get(SECRET_VARIABLE, "").strip() or None
        return OAuth2Session(
            self.oidc.client_id, secret, scope=self.oidc.scope, redirect_uri=self.back, code_challenge_method="S256"
        )


def _asked(address: str) -> Any:
    answer = requests.get(address, timeout=_PATIENCE)
    answer.raise_for_status()
    return answer.json()
