/* Time that passes, whatever the calendar is set to. */
#ifndef FR_CLOCK_H
#define FR_CLOCK_H

double fr_seconds(void);
double fr_thread_seconds(void); /* that this thread has had a processor; some 0.3 us to ask */

#endif
