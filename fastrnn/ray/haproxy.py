"""The answer to HAProxy, which asks before each POST which replica gets it.

With ``RAY_SERVE_ENABLE_HA_PROXY=1`` Ray Serve puts HAProxy in the place of its proxies. Requests then reach the
replicas without calls of actors, and Ray's router decides where HAProxy asks for it.
"""

from __future__ import annotations

import uuid

from ray import serve
from ray.serve import Application
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .routing import SessionRouter, listen, session_id_of

#: Requests of a replica at a time, including open WebSockets. The server's own limits are lower, so that its refusals
#: are answers.
MOST_REQUESTS = 1 << 20


def with_request_router(application: Application) -> Application:
    """The application, whose requests HAProxy sends where its `SessionRouter` says."""
    name = application._bound_deployment.name

    def build() -> Starlette:
        router = RequestRouter()
        # Making a handle starts the deployment's router in this process, as in a replica.
        serve.get_deployment_handle(name, serve.get_replica_context().app_name).options(stream=True)
        return Starlette(routes=[Route("/internal/route", router.answer, methods=["POST"])])

    deployment = serve.deployment(serve.ingress(build)()).options(
        name=f"{name}-router", max_ongoing_requests=MOST_REQUESTS, ray_actor_options={"num_cpus": 0}
    )
    return application._with_ingress_request_router(deployment.bind())


class RequestRouter:
    """Says which replica gets a request, as the name of its actor: by the header of its session, or else any."""

    def __init__(self) -> None:
        self._router: SessionRouter | None = None
        listen(self._on_change)

    def _on_change(self, router: SessionRouter) -> None:
        self._router = router

    async def answer(self, request: Request) -> Response:
        session = session_id_of(request.scope) or uuid.uuid4().hex
        actor = None if self._router is None else self._router.actor(session)
        if actor is None:
            return JSONResponse({"error": "there is no replica"}, 503)
        return JSONResponse({"replica_id": actor})
