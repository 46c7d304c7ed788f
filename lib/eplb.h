/* libeplb: expert-parallelism load balancing as a C library.
 *
 * eplb_solve() answers with one placement for given loads. An eplb_rebalancer keeps decayed load
 * windows and the rules of when an update pays: what the daemon eplbd decides with, without
 * sockets.
 *
 * Words: a slot is a place on a GPU that holds one logical expert's weights; slot s is on GPU
 * s / (slots / gpus). A placement is the map slot -> logical expert, int32 [layers, slots]; -1 in
 * the slots of a GPU that is down. Imbalance of a layer: largest GPU load / mean GPU load. Of the
 * whole model: sum over layers of the largest / sum over layers of the mean. A move is a slot whose
 * new expert its GPU did not hold before. All arrays are row-major and the caller's.
 *
 * Every function that can fail returns an eplb_status and, where `error` is not NULL, says there
 * what was wrong. Nothing is printed, no thread is started, nothing is kept between calls but in
 * handles. Calls on different handles may run at the same time; calls on one may not.
 *
 * Structs with `struct_size` grow at their end: set it by the _init function, and a program keeps
 * working with a newer library.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef EPLB_H
#define EPLB_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum eplb_status {
  EPLB_OK = 0,
  EPLB_INVALID_ARGUMENT = 1, /* error.argument names it */
  EPLB_IMPOSSIBLE = 2,       /* no placement obeys what was asked for */
  EPLB_OUT_OF_MEMORY = 3,
  EPLB_INTERNAL = 4 /* a fault of the library */
} eplb_status;

typedef struct eplb_error {
  char argument[32]; /* the parameter or field at fault; "" where there is none */
  char message[256]; /* a sentence for people */
} eplb_error;

/* "1.0.0": of the library that runs, which may be newer than this header. */
const char* eplb_version(void);
const char* eplb_status_text(int32_t status);

/* ---- The shape ---- */

typedef struct eplb_topology {
  size_t struct_size;
  int32_t layers;          /* MoE layers */
  int32_t logical_experts; /* of each layer */
  int32_t slots;           /* of each layer, over all GPUs; a multiple of gpus */
  int32_t gpus;
  int32_t nodes;            /* default 1; consecutive GPUs form a node */
  int32_t groups;           /* default 1; contiguous blocks of experts, kept on a node each */
  const double* gpu_speeds; /* [gpus] relative to each other, or NULL: all alike */
} eplb_topology;

void eplb_topology_init(eplb_topology* topology);

/* Slot s holds expert s % logical_experts, as vLLM starts. physical_to_logical [layers, slots]. */
eplb_status eplb_initial(const eplb_topology* topology, int32_t* physical_to_logical,
                         eplb_error* error);

/* ---- One placement ---- */

typedef enum eplb_policy {
  EPLB_DEEPSEEK = 0,   /* the published greedy algorithm, element by element */
  EPLB_EVOLVED = 1,    /* its published successor */
  EPLB_JOINT = 2,      /* from scratch, replication and packing searched together: best balance */
  EPLB_INCREMENTAL = 3 /* improves `current` by few moves */
} eplb_policy;

/* Groups kept on nodes: where the shape divides (not for EPLB_INCREMENTAL), always, never. */
typedef enum eplb_hierarchical { EPLB_AUTO = 0, EPLB_YES = 1, EPLB_NO = 2 } eplb_hierarchical;

typedef struct eplb_solve_options {
  size_t struct_size;
  int32_t policy;       /* eplb_policy; default EPLB_JOINT */
  int32_t hierarchical; /* eplb_hierarchical */
  uint64_t seed;
  const int32_t* current;   /* [layers, slots] the placement in force, or NULL: none. With one, a
                               policy from scratch keeps what it can where it lies.
                               EPLB_INCREMENTAL starts from eplb_initial() without one. */
  const int32_t* gpus_down; /* [gpus_down_count] hold nothing; ascending */
  size_t gpus_down_count;
  int64_t max_moves; /* EPLB_INCREMENTAL keeps to them, others are refused; 0: no limit */
  int64_t max_moves_per_gpu;
  double settle;   /* imbalance of a layer where EPLB_INCREMENTAL stops; default 1 */
  double min_gain; /* what balance is worth against moves; default 0.003, 0: moves are free */
  double time_budget_seconds; /* EPLB_JOINT goes on searching so long; 0: until its own end */
} eplb_solve_options;

void eplb_solve_options_init(eplb_solve_options* options);

typedef struct eplb_solution {
  size_t struct_size;
  double imbalance;         /* of the whole model; 1 without load */
  int64_t moves;            /* from `current`, else from eplb_initial() */
  int64_t moves_of_one_gpu; /* the most that one receives */
  int32_t hierarchical;     /* 1: groups were kept on nodes */
  int32_t most_replicas;    /* of any expert */
} eplb_solution;

void eplb_solution_init(eplb_solution* solution);

/* loads [layers, logical_experts], finite, >= 0. Writes physical_to_logical [layers, slots];
 * replica_rank [layers, slots], which replica of its expert a slot is as the policy numbers them,
 * and `solution` where they are not NULL. `options` may be NULL. EPLB_DEEPSEEK and EPLB_EVOLVED
 * without `current` may put an expert twice on a GPU, as the originals do. */
eplb_status eplb_solve(const eplb_topology* topology, const double* loads,
                       const eplb_solve_options* options, int32_t* physical_to_logical,
                       int32_t* replica_rank, eplb_solution* solution, eplb_error* error);

/* ---- About a placement ---- */

/* logical_to_physical [layers, logical_experts, width], -1 padded, and replica_count
 * [layers, logical_experts]; either may be NULL. Replicas in the order of replica_rank, or, where
 * that is NULL, of their slots. Invalid where an expert has more than `width` replicas. */
eplb_status eplb_replicas(const eplb_topology* topology, const int32_t* physical_to_logical,
                          const int32_t* replica_rank, int32_t width, int32_t* logical_to_physical,
                          int32_t* replica_count, eplb_error* error);

/* Imbalance of each layer [layers], 0 for a layer without load, and of the whole model; either may
 * be NULL. GPUs all of whose slots are -1 in every layer count neither for the largest nor mean. */
eplb_status eplb_imbalance(const eplb_topology* topology, const int32_t* physical_to_logical,
                           const double* loads, double* layers, double* whole_model,
                           eplb_error* error);

/* What no placement of these loads without an expert twice on a GPU is below, proven; as
 * eplb_imbalance(). Groups are kept on nodes where eplb_solve() does so from scratch. */
eplb_status eplb_bound(const eplb_topology* topology, const double* loads,
                       const eplb_solve_options* options, double* layers, double* whole_model,
                       eplb_error* error);

/* EPLB_INVALID_ARGUMENT, with the first rule that is broken: every expert has a slot, ids are in
 * range, no GPU holds an expert twice, GPUs that are empty in one layer are so in all. */
eplb_status eplb_check(const eplb_topology* topology, const int32_t* physical_to_logical,
                       eplb_error* error);

/* ---- When to rebalance, and to what ---- */

typedef struct eplb_rebalancer eplb_rebalancer;

typedef struct eplb_rebalancer_options {
  size_t struct_size;
  int32_t policy;       /* eplb_policy; default EPLB_INCREMENTAL */
  int32_t hierarchical; /* eplb_hierarchical */
  uint64_t seed;
  double half_life_seconds;        /* of the load window; 0: it tunes itself (default) */
  double imbalance;                /* of a layer, above which it acts; default 1.10 */
  double settle;                   /* below `imbalance`, where an update stops; default 1.05 */
  double cooldown_seconds;         /* since the last placement was applied; default 5 */
  double min_gain;                 /* least drop of the whole model's imbalance; default 0.01 */
  int64_t min_tokens_per_gpu_step; /* default 64 */
  int64_t updates_per_hour;        /* default 120; 0: no limit, as for the next ones */
  int64_t moves_per_hour;
  int64_t max_moves;
  int64_t max_moves_per_gpu;
  int64_t max_layers;
  const int32_t* current; /* [layers, slots] what runs now; NULL: eplb_initial() */
} eplb_rebalancer_options;

void eplb_rebalancer_options_init(eplb_rebalancer_options* options);

/* Times `now` are seconds of any clock that does not go back. */
eplb_status eplb_rebalancer_new(const eplb_topology* topology,
                                const eplb_rebalancer_options* options, double now,
                                eplb_rebalancer** rebalancer, eplb_error* error);
void eplb_rebalancer_free(eplb_rebalancer* rebalancer);

/* counts [layers, logical_experts]: routed tokens of the `seconds` that end at `now`, in so many
 * forward passes. */
eplb_status eplb_rebalancer_add(eplb_rebalancer* rebalancer, const uint32_t* counts, double seconds,
                                uint64_t steps, double now, eplb_error* error);

typedef struct eplb_decision {
  size_t struct_size;
  int32_t update;         /* 1: apply the placement, then call eplb_rebalancer_applied() */
  uint64_t id;            /* of that placement */
  double imbalance;       /* now, under the placement in force; 0: no tokens */
  double imbalance_after; /* expected; 0: no candidate was made */
  int64_t moves;
  int64_t moves_of_one_gpu;
  char verdict[32]; /* a word: balanced, cooling_down, update ... */
  char detail[256]; /* a sentence with the numbers */
} eplb_decision;

void eplb_decision_init(eplb_decision* decision);

/* physical_to_logical [layers, slots] is written where decision.update is 1. Nothing more is
 * decided until that placement was reported applied, or given up. */
eplb_status eplb_rebalancer_decide(eplb_rebalancer* rebalancer, double now, eplb_decision* decision,
                                   int32_t* physical_to_logical, eplb_error* error);

/* Placement `id` is in force now. */
eplb_status eplb_rebalancer_applied(eplb_rebalancer* rebalancer, uint64_t id, double now,
                                    eplb_error* error);

/* What was not asked of us is in force now: physical_to_logical [layers, slots]. Also the way to
 * give up an update that could not be applied. */
eplb_status eplb_rebalancer_adopt(eplb_rebalancer* rebalancer, const int32_t* physical_to_logical,
                                  double now, eplb_error* error);

/* The placement in force [layers, slots], and the load window [layers, logical_experts] at `now`;
 * either may be NULL. */
eplb_status eplb_rebalancer_state(const eplb_rebalancer* rebalancer, double now,
                                  int32_t* physical_to_logical, double* loads, eplb_error* error);

#ifdef __cplusplus
}
#endif
#endif
