"""End-to-end lanes: a real control plane, emulated nodes, the demo and the benchmarks."""
