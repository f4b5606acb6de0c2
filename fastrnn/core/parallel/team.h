/* A team of workers that run the steps of one cell together. */
#ifndef FR_TEAM_H
#define FR_TEAM_H

#include "barrier.h"

/* The team as one of its members sees it. */
typedef struct fr_team {
    int size, index;
    fr_barrier *barrier; /* unused if size is 1 */
} fr_team;

/* Waits for all members of the team; as fr_barrier_wait. */
static inline double fr_team_wait(const fr_team *team)
{
    return team->size == 1 ? 0 : fr_barrier_wait(team->barrier, team->size);
}

/* The part of [0, count) that this member computes. */
static inline fr_range fr_team_share(const fr_team *team, int64_t count)
{
    if (team->size == 1) /* two divisions are noticeable in a step of 0.1 us */
        return (fr_range){0, count};
    return (fr_range){count * team->index / team->size, count * (team->index + 1) / team->size};
}

#endif
