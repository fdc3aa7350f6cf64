"""How often the bounds of `pinglow calibrate` are above the true rate, where alarms come in bursts.

One clip in ten has a burst of five alarms on average; the others have none.

python experiments/scripts/bounds.py
"""

from __future__ import annotations

import numpy as np

from pinglow.evaluation.operating_point import burst_bound, clip_bound, poisson_bound

FOOTAGES, CONFIDENCE, SHARE, SIZE = 400, 0.95, 0.1, 5.0


def main() -> None:
    print("clips  exact  bootstrap  bursts  the largest")
    for clips in (5, 10, 20, 40, 80, 160):
        random = np.random.default_rng(clips)
        hours, kept = np.ones(clips), np.zeros(4)
        for _ in range(FOOTAGES):
            alarms = random.poisson(SIZE, clips) * (random.uniform(size=clips) < SHARE)
            exact = poisson_bound(int(alarms.sum()), clips, CONFIDENCE)
            drawn = clip_bound(alarms, hours, CONFIDENCE)
            bursts = burst_bound(alarms, clips, CONFIDENCE)
            bounds = np.array([exact, drawn, bursts, max(exact, drawn, bursts)])
            kept += bounds >= SHARE * SIZE
        shares = "  ".join(f"{share / FOOTAGES:7.1%}" for share in kept)
        print(f"{clips:5}  {shares}")


if __name__ == "__main__":
    main()
