// Features that an instruction set requires: FEATURE(set, name, leaf of CPUID, register, bit). A line gives the
// compiler option -mNAME (CMakeLists.txt) and a check when the program runs (dispatch.cpp). Bits, because
// __builtin_cpu_supports of older compilers does not know all names. Files of amx are compiled with the features of
// avx512 as well.
FEATURE(avx2, "popcnt", 1, ecx, 23)
FEATURE(avx2, "bmi", 7, ebx, 3)
FEATURE(avx2, "avx2", 7, ebx, 5)
FEATURE(avx512, "bmi2", 7, ebx, 8)
FEATURE(avx512, "avx512f", 7, ebx, 16)
FEATURE(avx512, "avx512dq", 7, ebx, 17)
FEATURE(avx512, "avx512bw", 7, ebx, 30)
FEATURE(avx512, "avx512vl", 7, ebx, 31)
FEATURE(avx512, "avx512vbmi", 7, ecx, 1)
FEATURE(avx512, "avx512vbmi2", 7, ecx, 6)
FEATURE(avx512, "gfni", 7, ecx, 8)
FEATURE(avx512, "avx512vnni", 7, ecx, 11)
FEATURE(avx512, "avx512bitalg", 7, ecx, 12)
FEATURE(avx512, "avx512vpopcntdq", 7, ecx, 14)
FEATURE(amx, "amx-tile", 7, edx, 24)
FEATURE(amx, "amx-int8", 7, edx, 25)
