#include "cmd/continue_line.h"
#include "base/vec.h"

bool flag_is(const char *word, const char *name) {
    if (strncmp(word, "--", 2) != 0) return false;
    for (word += 2; *name; word++, name++)
        if (*word != *name && !(*word == '-' && *name == '_')) return false;
    return *word == '\0' || *word == '=';
}

bool has_flag(int argc, char **argv, const char *name) {
    for (int i = 1; i < argc; i++)
        if (flag_is(argv[i], name)) return true;
    return false;
}

static void put(CharVec *out, const char *text) {
    vec_extend(out, text, strlen(text));
}

static void put_word(CharVec *out, const char *word) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";
    put(out, " ");
    if (*word && word[strspn(word, plain)] == '\0') {
        put(out, word);
        return;
    }
    put(out, "'");
    for (; *word; word++)
        if (*word == '\'')
            put(out, "'\\''");
        else
            vec_push(out, *word);
    put(out, "'");
}

static bool is_replaced(const char *word) {
    return flag_is(word, "resume_from_vlm_checkpoint") || flag_is(word, "vlm_checkpoint_path") ||
           flag_is(word, "run_name");
}

char *continue_line(const char *checkpoint, int argc, char **argv) {
    CharVec out = {0};
    put(&out, "vlm");
    for (int i = 0; i < argc; i++) {
        if (!is_replaced(argv[i]))
            put_word(&out, argv[i]);
        else if (!strchr(argv[i], '=') && i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0)
            i++; // its value goes with it
    }
    put(&out, " --resume_from_vlm_checkpoint true --vlm_checkpoint_path");
    put_word(&out, checkpoint);
    vec_push(&out, '\0');
    return out.items;
}
