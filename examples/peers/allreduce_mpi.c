/* All-reduce of MPI, for `allreduce` to stand beside: mpicc -O2 allreduce_mpi.c -o allreduce_mpi && mpirun -np 2 ./allreduce_mpi 4096 262144
 *
 * Sums single-precision vectors of so many bytes. For each size one line: the bytes, then the seconds of every
 * repetition, the slowest rank's, each after a barrier. Every first result is checked.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int repetitions(long bytes) {
    return bytes <= 256 << 10 ? 200 : bytes <= 4 << 20 ? 40 : 10;
}

int main(int count, char **arguments) {
    MPI_Init(&count, &arguments);
    int rank, ranks;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (int which = 1; which < count; which++) {
        long bytes = atol(arguments[which]);
        int values = (int)(bytes / (long)sizeof(float)), times = repetitions(bytes);
        float *own = malloc(bytes), *sum = malloc(bytes);
        double *seconds = malloc(times * sizeof(double)), *slowest = malloc(times * sizeof(double));
        if (!own || !sum || !seconds || !slowest) {
            fprintf(stderr, "no memory for %ld bytes\n", bytes);
            MPI_Abort(MPI_COMM_WORLD, 1);
        }
        for (int i = 0; i < values; i++) own[i] = (float)(rank + i % 7);
        for (int i = 0; i < 5; i++) MPI_Allreduce(own, sum, values, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        for (int i = 0; i < values; i++) {
            float expected = (float)(ranks * (ranks - 1) / 2 + ranks * (i % 7));
            if (sum[i] != expected) {
                fprintf(stderr, "value %d is %g instead of %g\n", i, sum[i], expected);
                MPI_Abort(MPI_COMM_WORLD, 1);
            }
        }
        for (int i = 0; i < times; i++) {
            MPI_Barrier(MPI_COMM_WORLD);
            double start = MPI_Wtime();
            MPI_Allreduce(own, sum, values, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
            seconds[i] = MPI_Wtime() - start;
        }
        MPI_Reduce(seconds, slowest, times, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
        if (rank == 0) {
            printf("%ld", bytes);
            for (int i = 0; i < times; i++) printf(" %.9f", slowest[i]);
            printf("\n");
        }
        free(own), free(sum), free(seconds), free(slowest);
    }
    return MPI_Finalize();
}
