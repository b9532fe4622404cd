#include "train/suspects.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/html.h"
#include "data/show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void suspects_open(Suspects *s, const char *run, const SampleRules *rules, size_t most, size_t rank,
                   size_t world_size) {
    *s = (Suspects){.rules = rules, .most = most, .rank = rank, .world_size = world_size};
    s->folder = path_join(run, "batches");
}

void suspects_close(Suspects *s) {
    free(s->folder);
    vec_free(&s->rows);
    *s = (Suspects){0};
}

void suspects_add(Suspects *s, const Batch *batch, bool is_first) {
    if (is_first) vec_clear(&s->rows);
    if (batch->rows) vec_extend(&s->rows, batch->rows, batch->n_samples);
}

// ---- rows as text ----

static int by_number(const void *a, const void *b) {
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

char *suspects_rows_text(const size_t *rows, size_t n) {
    enum { MAX_RANGES = 40 };
    if (n == 0) return mem_strdup("unknown rows");
    size_t *sorted = mem_alloc(n * sizeof *sorted), ranges = 0, i = 0;
    memcpy(sorted, rows, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_number);
    CharVec text = {0};
    while (i < n && ranges < MAX_RANGES) {
        const size_t first = sorted[i++];
        size_t last = first;
        while (i < n && sorted[i] <= last + 1) last = sorted[i++];
        html_put(&text, ranges++ ? ",%zu" : "rows %zu", first);
        if (last > first) html_put(&text, "-%zu", last);
    }
    if (i < n) html_put(&text, " and %zu more", n - i);
    html_put(&text, " of the data set");
    vec_push(&text, '\0');
    free(sorted);
    return text.items;
}

// ---- pages ----

// Pages of this rank that are there already, of the processes before this one as well.
static size_t pages_there(const Suspects *s, const char *ending) {
    StringList list;
    size_t n = 0;
    if (!file_list(&list, s->folder, NULL)) return 0;
    for (size_t i = 0; i < list.count; i++) {
        const size_t length = strlen(list.items[i]), tail = strlen(ending);
        n += length > tail && !strcmp(list.items[i] + length - tail, ending);
    }
    string_list_free(&list);
    return n;
}

static bool write_page(const Suspects *s, const Batch *batch, const SuspectPage *page, const char *path,
                       Error *err) {
    char *title = mem_printf("step %llu, batch %llu: %s", (unsigned long long)page->step,
                             (unsigned long long)page->batch, page->why);
    CharVec html = {0};
    show_begin(&html, title);
    const bool ok = show_batch(&html, s->rules, batch, err) && file_make_folders(s->folder, err);
    show_end(&html);
    const bool written = ok && file_write_text(path, html.items, html.count, err);
    vec_free(&html);
    free(title);
    return written;
}

void suspects_show(const Suspects *s, const Batch *batch, SuspectPage page) {
    char ending[64] = ".html";
    Error err;
    if (!s->rules || (!page.is_wanted && s->most == 0)) return;
    if (s->world_size > 1) snprintf(ending, sizeof ending, "_rank%zu.html", s->rank);
    if (!page.is_wanted && pages_there(s, ending) >= s->most) return;
    char *path = mem_printf("%s/step_%llu_batch_%llu%s", s->folder, (unsigned long long)page.step,
                            (unsigned long long)page.batch, ending);
    if (write_page(s, batch, &page, path, &err))
        log_info("the batch is shown in %s", path);
    else
        log_warning("the batch cannot be shown: %s; training goes on", err.text);
    free(path);
}
