// Whether the test is built with the sanitizers, under which it runs several times slower. Of what shows them
// nothing new a part may then be left to the release build, whose run of the same test checks all of it.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
