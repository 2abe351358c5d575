"""What the controller survives: faults at random moments against a real control plane.

Judged by the kubelets' own counters: after each fault every image is on every node, no pair was pulled twice without
need, none was forgotten, and no pod is left over. `make survive` plays all seeds and prints how many of each fault were
survived.
"""
