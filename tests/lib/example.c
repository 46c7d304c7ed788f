/* The example of docs/library.md. */
#include <eplb.h>
#include <stdio.h>

int main(void) {
  const double loads[8] = {4000, 100, 100, 100, 100, 100, 100, 100};
  int32_t placement[12];
  eplb_topology topology;
  eplb_solution solution;
  eplb_error error;
  eplb_topology_init(&topology);
  eplb_solution_init(&solution);
  topology.layers = 1, topology.logical_experts = 8, topology.slots = 12, topology.gpus = 4;
  if (eplb_solve(&topology, loads, NULL, placement, NULL, &solution, &error) != EPLB_OK) {
    fprintf(stderr, "%s: %s\n", error.argument, error.message);
    return 1;
  }
  printf("imbalance %.3f, first slot holds expert %d\n", solution.imbalance, placement[0]);
  return solution.imbalance < 1.03 ? 0 : 1;
}
