"""`pointrend serve` on Ray Serve: as many copies as there is work for.

pip install 'pointrend[serve]' 'ray[serve]'
serve run examples.cluster.ray_serve:service
"""

from __future__ import annotations

from ray import serve

import pointrend
from pointrend.app.limits import Limits
from pointrend.serve.api import ServiceLimits, build_service
from pointrend.serve.backends import TorchBackend


def build():
    """The application, in the process of each copy."""
    predictor = pointrend.Predictor(pointrend.load("photo-semantic"))
    return build_service(TorchBackend(predictor), ServiceLimits(Limits()))


@serve.deployment(
    autoscaling_config={"min_replicas": 1, "max_replicas": 8}, ray_actor_options={"num_cpus": 2}
)
@serve.ingress(build)
class PointRend:
    """A copy."""


service = PointRend.bind()
