// `vlm generate --interactive`: a chat. Lines of standard input are turns or commands. Keys and values of
// what was said stay in the cache, so that each turn runs only its own tokens.
#include "cmd/generate_chat.h"
#include "base/check.h"
#include "base/cores.h"
#include "base/log.h"
#include "cmd/answer.h"
#include "cmd/pictures.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct Chat {
    Session *s;
    const GenerateFlags *f;
    Generation g;
    Pictures pictures; // for the next turn
    Int32Vec unfed;    // the end of the last answer that is not in the cache
    uint64_t turns;
    bool at_terminal, done;
} Chat;

// ---- Ctrl-C ----

// No handler may run on a thread that computes (docs/architecture.md), so one thread waits for the signal.
static atomic_bool is_answering, is_stopping;

static void *wait_for_interrupts(void *unused) {
    sigset_t set;
    int number;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    for (;;) {
        if (sigwait(&set, &number) != 0) continue;
        if (!is_answering || is_stopping) _exit(128 + SIGINT);
        is_stopping = true;
        answer_interrupt(true);
    }
    return unused;
}

void chat_catch_interrupts(void) {
    sigset_t set;
    pthread_t thread;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    signal(SIGINT, SIG_DFL);
    int failed = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (!failed) failed = cores_start_thread(&thread, wait_for_interrupts, NULL);
    CHECK(!failed, "no thread for signals: error %d", failed);
    pthread_detach(thread);
}

static void set_answering(bool answering) {
    is_stopping = false;
    answer_interrupt(false);
    is_answering = answering;
}

// ---- turns ----

// The prompt of this turn; behind an answer it begins with that answer's last tokens.
static bool build_turn(Prompt *p, Chat *c, const char *text, Error *err) {
    const PromptForm form = {.system = c->f->system, .follows = c->g.cache.used > 0};
    if (!prompt_build_form(p, &c->s->config, &c->s->chat, c->pictures.items, c->pictures.count, text, &form,
                           err))
        return false;
    Int32Vec ids = {0};
    vec_extend(&ids, c->unfed.items, c->unfed.count);
    vec_extend(&ids, p->ids.items, p->ids.count);
    vec_free(&p->ids);
    p->ids = ids;
    const size_t used = c->g.cache.used + ids.count, room = c->g.capacity;
    if (used < room) return true;
    prompt_free(p);
    return error_set(
        err,
        "the chat would have %zu tokens with this turn, --context is %zu; /clear begins a new one, or "
        "start with a larger --context",
        used, room);
}

static bool take_turn(Chat *c, const char *text, Error *err) {
    Prompt prompt;
    Answer a;
    if (!build_turn(&prompt, c, text, err)) return false;
    const size_t before = c->g.cache.used, room = c->g.capacity - before - prompt.ids.count;
    const size_t limit = c->f->max_new_tokens < room ? c->f->max_new_tokens : room;
    answer_init(&a, c->s, c->f, !c->f->json);
    set_answering(true);
    const bool ok = answer_run(&a, &c->g, &prompt, before > 0, limit, c->turns++, err);
    set_answering(false);
    if (ok) {
        const size_t fed = c->g.cache.used - before - prompt.ids.count;
        vec_clear(&c->unfed);
        vec_extend(&c->unfed, a.ids.items + fed, a.ids.count - fed);
        answer_end(&a, &c->g, c->f->json ? answer_json(&a) : NULL);
        pictures_free(&c->pictures);
    }
    answer_free(&a);
    prompt_free(&prompt);
    return ok;
}

// ---- commands ----

static bool add_image(Chat *c, const char *path, Error *err) {
    if (!*path) return error_set(err, "/image: name a file");
    if (!pictures_add(&c->pictures, c->s, path, err)) return false;
    fprintf(stderr, "%s: %zu x %zu, goes with the next question\n", path,
            c->pictures.items[c->pictures.count - 1].width, c->pictures.items[c->pictures.count - 1].height);
    return true;
}

static bool clear(Chat *c, const char *rest, Error *err) {
    (void)rest, (void)err;
    c->g.cache.used = 0;
    vec_clear(&c->unfed);
    pictures_free(&c->pictures);
    return true;
}

static bool leave(Chat *c, const char *rest, Error *err) {
    (void)rest, (void)err;
    c->done = true;
    return true;
}

static bool show_help(Chat *c, const char *rest, Error *err);

static const struct {
    const char *name;
    bool (*run)(Chat *c, const char *rest, Error *err);
    const char *help;
} chat_commands[] = {
    {"/image", add_image, "/image PATH  a picture for the next question; several are fine"},
    {"/clear", clear, "/clear       forget everything said so far"},
    {"/help", show_help, "/help        this list"},
    {"/exit", leave,
     "/exit        leave (as the end of the input and Ctrl-C do; while an answer comes, Ctrl-C "
     "stops that first)"},
};
enum { N_COMMANDS = sizeof chat_commands / sizeof *chat_commands };

static bool show_help(Chat *c, const char *rest, Error *err) {
    (void)c, (void)rest, (void)err;
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(stderr, "%s\n", chat_commands[i].help);
    return true;
}

static bool run_command(Chat *c, char *line, Error *err) {
    char *rest = line + strcspn(line, " ");
    const size_t n = (size_t)(rest - line);
    rest += strspn(rest, " ");
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strlen(chat_commands[i].name) == n && !memcmp(chat_commands[i].name, line, n))
            return chat_commands[i].run(c, rest, err);
    return error_set(err, "%.*s is no command; /help lists them", (int)(n < 40 ? n : 40), line);
}

// ---- the loop ----

static bool read_line(Chat *c, char **line, size_t *capacity) {
    if (c->at_terminal) fprintf(stderr, "> ");
    ssize_t n = getline(line, capacity, stdin);
    if (n > 0 && (*line)[n - 1] == '\n') (*line)[n - 1] = '\0';
    return n >= 0;
}

// What goes wrong in a turn is said, and the chat goes on as it was.
static void talk(Chat *c) {
    char *line = NULL;
    size_t capacity = 0;
    Error err;
    while (!c->done && read_line(c, &line, &capacity)) {
        if (!*line) continue;
        const bool ok = line[0] == '/' ? run_command(c, line, &err) : take_turn(c, line, &err);
        if (!ok) log_error("%s", err.text);
    }
    free(line);
}

bool generate_chat(Session *s, const GenerateFlags *f, Error *err) {
    const size_t context = generate_context(f, s);
    const SessionPlan plan = {
        1, context, generate_tiles(s, context), f->threads, weights_dtype(f->weights), f->adapter};
    Chat c = {.s = s, .f = f, .at_terminal = isatty(STDIN_FILENO)};
    bool ok = true;
    for (size_t i = 0; ok && i < f->image.count; i++)
        ok = pictures_add(&c.pictures, s, f->image.items[i], err);
    ok = ok && session_load(s, &plan, err) && generation_create(&c.g, &s->model, 1, context, err);
    if (ok) talk(&c);
    generation_free(&c.g);
    pictures_free(&c.pictures);
    vec_free(&c.unfed);
    return ok;
}
