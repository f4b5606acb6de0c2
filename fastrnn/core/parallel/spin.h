/* Waiting for another thread by spinning. */
#ifndef FR_SPIN_H
#define FR_SPIN_H

/* One wait, {0} at its beginning. After some time fr_spin_pause yields the processor at each call, and later sleeps: threads of
 * a lower priority get the processor only then. */
typedef struct fr_spin {
    int pauses;
    double since; /* seconds: about when the wait began; 0 for a short wait */
} fr_spin;
void fr_spin_pause(fr_spin *spin);
double fr_spin_seconds(const fr_spin *spin); /* since the wait began; 0 for a short wait */

#endif
