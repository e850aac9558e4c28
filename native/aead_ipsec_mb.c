// SPDX-License-Identifier: Apache-2.0
// AES-256-GCM through intel-ipsec-mb's direct calls: no context set-up per packet, VAES where the CPU has it.
#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>

#include "aead.h"
#include "vault.h"

static IMB_MGR *manager;

static bool available(void) {
  if (manager == NULL) {
    manager = alloc_mb_mgr(0);
    if (manager == NULL) return false;
    init_mb_mgr_auto(manager, NULL);
  }
  // Without these its generic code would leak keys through the cache's timing.
  const uint64_t needed = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ | IMB_FEATURE_AVX;
  return imb_get_errno(manager) == 0 && (manager->features & needed) == needed;
}

static void *create(const uint8_t key[AEAD_KEY], bool seal) {
  (void)seal;
  struct gcm_key_data *data = vault_alloc(sizeof *data);
  if (data != NULL) IMB_AES256_GCM_PRE(manager, key, data);
  return data;
}

static void destroy(void *handle) { vault_free(handle); }

static void seal(void *handle, const uint8_t nonce[AEAD_NONCE], const uint8_t *aad, size_t aad_length, uint8_t *data,
                 size_t length, uint8_t tag[AEAD_TAG]) {
  struct gcm_context_data context;
  IMB_AES256_GCM_ENC(manager, handle, &context, data, data, length, nonce, aad, aad_length, tag, AEAD_TAG);
}

static bool open(void *handle, const uint8_t nonce[AEAD_NONCE], const uint8_t *aad, size_t aad_length, uint8_t *data,
                 size_t length, const uint8_t tag[AEAD_TAG]) {
  struct gcm_context_data context;
  uint8_t computed[AEAD_TAG];
  IMB_AES256_GCM_DEC(manager, handle, &context, data, data, length, nonce, aad, aad_length, computed, AEAD_TAG);
  return CRYPTO_memcmp(computed, tag, AEAD_TAG) == 0;
}

const struct aead_backend aead_ipsec_mb = {"ipsec-mb", sizeof(struct gcm_key_data), available, create, destroy, seal, open};
